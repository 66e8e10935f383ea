"""The parts of the claims about maps and layers that could be wrong without anyone noticing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from netwright.claims.beds.maps import score, smooth_gradient
from netwright.claims.beds.scenes import _paste, scenes
from netwright.claims.explain import smooth_gradcampp as smooth
from netwright.claims.inspect.cka import Seen, correlation_analysis, identified, regression


def test_maps_are_scored_as_the_claims_say() -> None:
    inside = torch.zeros(2, 4, 4, dtype=torch.bool)
    inside[:, :2, :2] = True
    heat = torch.zeros(2, 4, 4)
    heat[0, :2, :2] = 1.0  # exactly the box
    heat[1] = 0.2  # everywhere a little, most outside the box
    heat[1, 3, 3] = 1.0
    both = torch.tensor([2, 1])
    found = score(heat, inside, both)
    assert found["pointing"] == 0.5
    assert found["iou_several"] == found["iou_at_0"] == found["iou_at_0.25"] == found["iou_at_0.5"] == 1.0
    # above 0: 4 of 16; above a quarter and a half of the maximum: one pixel outside, of 5
    assert found["iou_one"] == pytest.approx((4 / 16 + 0 + 0) / 3)
    assert found["energy"] == pytest.approx((1 + 0.8 / 4.0) / 2)


def test_an_empty_map_scores_nothing() -> None:
    found = score(torch.zeros(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool), torch.tensor([2]))
    assert found["iou_several"] == found["energy"] == 0


def test_a_box_is_that_of_the_pixels() -> None:
    article = torch.zeros(28, 28, dtype=torch.uint8)
    article[5, 7], article[9, 20] = 100, 50
    picture, inside = torch.full((64, 64), 9, dtype=torch.uint8), torch.zeros(64, 64, dtype=torch.bool)
    _paste(picture, inside, article, 10, 30)
    assert picture[15, 37] == 100
    assert picture[16, 38] == 9  # where the article is empty, what was there
    rows, columns = torch.nonzero(inside.any(1))[:, 0], torch.nonzero(inside.any(0))[:, 0]
    assert (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])) == (15, 19, 37, 50)


@pytest.mark.data("fashion_mnist")
def test_scenes_are_repeatable_and_hold_what_they_say() -> None:
    one, two = scenes("test", 12, seed=3), scenes("test", 12, seed=3)
    assert torch.equal(one.pictures, two.pictures)
    assert set(one.objects.tolist()) <= {1, 2, 3}
    assert bool((one.inside.flatten(1).sum(1) > 100).all())


def test_smooth_gradient_of_a_linear_network_is_its_weight() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(2 * 9, 3))
    x = torch.randn(4, 2, 3, 3)
    found = smooth_gradient(network, x, torch.tensor([0, 1, 2, 0]))
    expected = 5 * network[1].weight[[0, 1, 2, 0]].view(4, 2, 3, 3).abs().sum(1)
    assert torch.allclose(found, expected, atol=1e-5)


def test_baselines_of_cka_are_regression_and_canonical_correlation() -> None:
    generator = np.random.default_rng(0)
    x = torch.from_numpy(generator.normal(size=(200, 3)))
    y = x @ torch.from_numpy(generator.normal(size=(3, 5))) + 0.5 * torch.from_numpy(
        generator.normal(size=(200, 5))
    )
    x, y = x - x.mean(0), y - y.mean(0)
    a, b = (Seen(t, torch.linalg.qr(t).Q) for t in (x, y))
    weights = torch.linalg.lstsq(y, x).solution
    left = ((x - y @ weights) ** 2).sum() / (x**2).sum()
    assert regression(a, b) == pytest.approx(1 - float(left), abs=1e-9)
    from sklearn.cross_decomposition import CCA

    first, second = CCA(3, max_iter=5000, tol=1e-12).fit_transform(x.numpy(), y.numpy())
    squares = [np.corrcoef(first[:, k], second[:, k])[0, 1] ** 2 for k in range(3)]
    assert correlation_analysis(a, b) == pytest.approx(np.mean(squares), abs=1e-4)


def test_identified_counts_both_sides() -> None:
    assert identified(torch.eye(4)) == 1.0
    similarity = torch.tensor([[0.9, 0.1], [0.95, 0.2]])
    # rows: first right, second wrong; columns: first belongs to the second layer, second right
    assert identified(similarity) == 0.5


def test_each_threshold_has_a_figure_of_its_own_and_they_average_to_the_whole() -> None:
    inside = torch.zeros(1, 4, 4, dtype=torch.bool)
    inside[:, :2, :2] = True
    heat = torch.zeros(1, 4, 4)
    heat[0, :2, :2], heat[0, 2, :], heat[0, 3, 3] = 0.4, 0.2, 1.0
    found = score(heat, inside, torch.tensor([2]))
    assert found["iou_at_0"] == pytest.approx(4 / 9)
    assert found["iou_at_0.25"] == pytest.approx(4 / 5)
    assert found["iou_at_0.5"] == 0
    assert found["iou_several"] == pytest.approx((4 / 9 + 4 / 5) / 3)


def test_the_toy_versions_of_smooth_maps_are_what_they_say() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 256, 8), nn.ReLU(), nn.Linear(8, 3)
    ).eval()  # fmt: skip
    x, target = torch.randn(2, 1, 16, 16), torch.tensor([0, 2])
    sharp, blurred = (way(network, x, target) for way in (smooth.plus_plus, smooth.blurred))
    assert blurred[0, 8, 8].item() == pytest.approx(sharp[0, 4:13, 4:13].mean().item(), abs=1e-6)
    assert blurred[1, 0, 0].item() == pytest.approx(sharp[1, :5, :5].mean().item(), abs=1e-6)
    same = smooth.mean_of_maps(network, x, target, sigma=0.0)
    torch.testing.assert_close(same, sharp)
    assert not torch.allclose(smooth.mean_of_maps(network, x, target), sharp, atol=1e-3)
