from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from netwright.core.contracts import Explanation
from netwright.explain.grad_cam import GradCam
from netwright.explain.parts.faithfulness import (
    blurred,
    deletion_insertion,
    ignores_weights,
    randomised,
    similarity_after_randomising,
)  # fmt: skip


class Corner(nn.Module):
    """Class 1 while any of the four pixels of the upper left corner is lit."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(100.0))

    def forward(self, x: Tensor) -> Tensor:
        lit = x[:, 0, :2, :2].flatten(1).amax(1)
        return torch.stack([self.gain * 0.5 + 0 * lit, self.gain * lit], 1)


def heat(corner: float, rest: float) -> Tensor:
    values = torch.full((1, 4, 4), rest)
    values[:, :2, :2] = corner
    return values


def test_curves_of_a_known_network() -> None:
    x, target = torch.ones(1, 1, 4, 4), torch.tensor([1])
    best = deletion_insertion(Corner(), x, heat(1.0, 0.0), target, steps=4)
    worst = deletion_insertion(Corner(), x, heat(0.0, 1.0), target, steps=4)
    # four steps of four pixels; probabilities along the deletion curve are 1 0 0 0 0 and 1 1 1 1 0
    assert best["deletion"].item() == pytest.approx(0.125, abs=1e-6)
    assert worst["deletion"].item() == pytest.approx(0.875, abs=1e-6)


def test_steps_that_do_not_divide_the_pixels_are_rounded() -> None:
    """25 pixels in 16 steps, one at a time in the order of the map: the network tells how many are left."""

    class Count(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            lit = x.flatten(1).sum(1) / 10
            return torch.stack([torch.zeros_like(lit), lit], 1)

    heat = torch.randperm(25, generator=torch.Generator().manual_seed(0)).view(1, 5, 5).float()
    found = deletion_insertion(Count(), torch.ones(1, 1, 5, 5), heat, torch.tensor([1]), steps=16)
    left = 25 - np.round(np.arange(17) / 16 * 25)
    expected = np.trapezoid(1 / (1 + np.exp(-left / 10)), dx=1 / 16)
    assert found["deletion"].item() == pytest.approx(expected, abs=1e-6)


def test_insertion_starts_from_the_blurred_picture() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., :2, :2] = 1.0
    target = torch.tensor([1])
    assert blurred(x).amax() < 0.5  # so that the blurred picture is of class 0
    best = deletion_insertion(Corner(), x, heat(1.0, 0.0), target, steps=4)
    worst = deletion_insertion(Corner(), x, heat(0.0, 1.0), target, steps=4)
    assert best["insertion"].item() == pytest.approx(0.875, abs=0.01)
    assert worst["insertion"].item() == pytest.approx(0.125, abs=0.01)


def test_blur_is_a_gaussian_mean() -> None:
    flat = torch.full((2, 3, 9, 9), 4.0)
    assert torch.allclose(blurred(flat), flat)
    point = torch.zeros(1, 2, 31, 31)
    point[..., 15, 15] = 1.0
    at = np.arange(11) - 5
    kernel = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / 50)
    assert np.allclose(blurred(point)[0, 1, 10:21, 10:21], kernel / kernel.sum(), atol=1e-6)


def test_no_curves_where_they_mean_nothing() -> None:
    one = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1))
    x = torch.randn(2, 1, 4, 4)
    assert deletion_insertion(one, x, torch.rand(2, 4, 4), torch.zeros(2, dtype=torch.long)) == {}
    flat = nn.Linear(4, 3)
    assert deletion_insertion(flat, torch.randn(2, 4), torch.rand(2, 4), torch.zeros(2).long()) == {}


def test_shuffled_weights_keep_their_values(deep) -> None:
    shuffled = randomised(deep, seed=1)
    for old, new in zip(deep.parameters(), shuffled.parameters(), strict=True):
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
    assert not torch.equal(deep[0].weight, shuffled[0].weight)
    assert torch.equal(randomised(deep, 1)[3].weight, shuffled[3].weight)


class Edges:
    """Looks like an explanation and never asks the network: brightness of the picture."""

    def __call__(self, network: nn.Module, inputs: Tensor, target: Tensor | None = None) -> Explanation:
        return Explanation(inputs.abs().sum(1), torch.zeros(len(inputs), dtype=torch.long), "edges")


def test_an_explainer_that_ignores_the_weights_is_found_out(deep, pictures) -> None:
    assert torch.allclose(similarity_after_randomising(Edges(), deep, pictures), torch.ones(5))
    assert ignores_weights(Edges(), deep, pictures)
    assert not ignores_weights(GradCam(steps=0), deep, pictures)


def test_similarity_is_spearmans(deep, pictures) -> None:
    method = GradCam(steps=0)
    before = method(deep, pictures)
    after = method(randomised(deep, 7), pictures, before.target)
    expected = [
        abs(np.nan_to_num(spearmanr(a.flatten(), b.flatten()).statistic))
        for a, b in zip(before.attribution, after.attribution, strict=True)
    ]
    assert np.allclose(similarity_after_randomising(method, deep, pictures, seed=7), expected, atol=1e-6)


def test_a_constant_map_is_like_no_other(deep, pictures) -> None:
    class Flat:
        def __call__(self, network: nn.Module, inputs: Tensor, target: Tensor | None = None) -> Explanation:
            return Explanation(torch.ones(len(inputs), 4, 4), torch.zeros(len(inputs)).long(), "flat")

    assert similarity_after_randomising(Flat(), deep, pictures).tolist() == [0.0] * 5
