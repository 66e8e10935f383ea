"""Calibration figures against torchmetrics, scikit-learn, hand computation, and what they must do at the edges."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from netwright.core.errors import BadInput
from netwright.core.metrics import (
    adaptive_ece,
    brier,
    classwise_ece,
    ece,
    evaluate,
    nll,
    outputs_of,
    reliability,
    score,
    top_label,
)  # fmt: skip
from netwright.core.task import Task


def sample(count: int = 4000, classes: int = 5, sharpen: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities (N, C) and classes drawn from them; sharpen > 1 makes the probabilities overconfident."""
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    y = torch.multinomial(z.softmax(1), 1, generator=generator)[:, 0]
    return (z * sharpen).softmax(1), y


def by_hand(confidence: Tensor, hits: Tensor, edges: list[float]) -> float:
    """The definition, bin by bin, right-closed."""
    total = 0.0
    for low, high in pairwise(edges):
        inside = [
            i for i, c in enumerate(confidence.tolist()) if low < c <= high or (low == edges[0] and c == low)
        ]
        if inside:
            mean = lambda t, inside=inside: sum(float(t[i]) for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(mean(hits) - mean(confidence))
    return total


@pytest.mark.parametrize("bins", [5, 15, 100])
@pytest.mark.parametrize("sharpen", [0.3, 1.0, 3.0])
def test_ece_equals_torchmetrics_and_the_definition(bins: int, sharpen: float) -> None:
    p, y = sample(sharpen=sharpen)
    peer = multiclass_calibration_error(p, y, num_classes=5, n_bins=bins, norm="l1").item()
    # torchmetrics keeps single precision
    assert ece(p, y, bins) == pytest.approx(peer, abs=1e-5)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64).tolist()
    assert ece(p, y, bins) == pytest.approx(by_hand(*top_label(p, y), edges), abs=1e-12)
    largest = multiclass_calibration_error(p, y, num_classes=5, n_bins=bins, norm="max").item()
    assert reliability(*top_label(p, y), bins).mce == pytest.approx(largest, abs=1e-5)


def test_equal_mass_has_equal_counts_and_is_the_definition() -> None:
    p, y = sample(3000, sharpen=2.0)
    confidence, hits = top_label(p, y)
    found = reliability(confidence, hits, 15, "mass")
    assert found.count.tolist() == [200] * 15
    order = confidence.argsort()
    parts = zip(confidence[order].chunk(15), hits[order].double().chunk(15), strict=True)
    expected = sum(abs(float(h.mean() - c.mean())) for c, h in parts) / 15
    assert adaptive_ece(p, y) == pytest.approx(expected, abs=1e-12)


def test_classwise_is_the_mean_over_one_against_rest() -> None:
    p, y = sample(1000, classes=3, sharpen=2.0)
    edges = torch.linspace(0, 1, 16, dtype=torch.float64).tolist()
    expected = sum(by_hand(p[:, k], (y == k).double(), edges) for k in range(3)) / 3
    assert classwise_ece(p, y) == pytest.approx(expected, abs=1e-12)


def test_brier_and_nll_equal_scikit_learn() -> None:
    p, y = sample(sharpen=2.0)
    assert nll(p, y) == pytest.approx(log_loss(y, p), rel=1e-12)
    truth = nn.functional.one_hot(y, 5)
    expected = sum(brier_score_loss(truth[:, k], p[:, k]) for k in range(5))
    assert brier(p, y) == pytest.approx(expected, rel=1e-12)


def test_score_of_logits_is_that_of_their_probabilities() -> None:
    p, y = sample(sharpen=2.0)
    found = score(p.log() + 3.0, y, "classification")
    assert found["nll"] == pytest.approx(nll(p, y), rel=1e-9)
    assert found["brier"] == pytest.approx(brier(p, y), rel=1e-9)
    assert found["ece"] == pytest.approx(ece(p, y), rel=1e-9)
    assert found["accuracy"] == pytest.approx((p.argmax(1) == y).double().mean().item())


def test_a_target_for_each_position_counts_as_an_example() -> None:
    logits = torch.randn(6, 7, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(5, (6, 7), generator=torch.Generator().manual_seed(1))
    found = score(logits, targets, "classification")
    assert found == score(logits.reshape(42, 5), targets.reshape(42), "classification")
    task = Task.from_arrays(torch.randn(60, 3), torch.arange(60) % 5)
    assert task.loss(logits, targets).item() == pytest.approx(found["nll"], rel=1e-5)
    assert task.loss(logits[:, 0], targets[:, 0]) == nn.functional.cross_entropy(logits[:, 0], targets[:, 0])


def test_perfect_calibration_scores_about_nothing() -> None:
    p, y = sample(200_000)
    assert ece(p, y) < 0.004
    assert adaptive_ece(p, y) < 0.004
    assert classwise_ece(p, y) < 0.003
    assert ece(*sample(20_000, sharpen=4.0)) > 0.1


def test_confidence_one_falls_in_the_last_bin_and_empty_bins_count_nothing() -> None:
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = reliability(*top_label(p, torch.tensor([0, 0, 1, 1])), bins=10)
    assert found.count.tolist() == [0] * 9 + [4]
    assert found.ece == pytest.approx(0.25)
    assert found.mce == pytest.approx(0.25)
    assert math.isnan(found.confidence[0])


def test_ties_share_a_bin_of_equal_mass() -> None:
    confidence = torch.tensor([0.5] * 60 + [0.9] * 40)
    hits = torch.tensor([1.0, 0.0] * 30 + [1.0] * 40)
    found = reliability(confidence, hits, 10, "mass")
    assert sorted(found.count.tolist())[-2:] == [40, 60]
    assert found.ece == pytest.approx(0.4 * 0.1, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 20),
    st.sampled_from(["width", "mass"]),
)
def test_every_example_is_in_one_bin_and_the_gap_is_bounded(pairs, bins, binning) -> None:
    confidence = torch.tensor([c for c, _ in pairs], dtype=torch.float64)
    hits = torch.tensor([float(h) for _, h in pairs], dtype=torch.float64)
    found = reliability(confidence, hits, bins, binning)
    assert int(found.count.sum()) == len(pairs)
    # one bin gives the least error, one bin per example the most
    whole = abs(float(hits.mean() - confidence.mean()))
    assert whole - 1e-9 <= found.ece <= float((hits - confidence).abs().mean()) + 1e-9
    assert found.ece <= found.mce + 1e-12
    shuffled = torch.randperm(len(pairs))
    assert reliability(confidence[shuffled], hits[shuffled], bins, binning).ece == pytest.approx(found.ece)


def test_certain_and_wrong_has_a_finite_likelihood() -> None:
    assert math.isfinite(nll(torch.tensor([[1.0, 0.0]]), torch.tensor([1])))
    assert math.isfinite(nll(torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([1])))


def test_regression_and_multilabel_figures() -> None:
    y = torch.tensor([1.0, 2.0, 3.0, 6.0])
    found = score(torch.tensor([[1.0], [2.0], [4.0], [4.0]]), y, "regression")
    assert found["mse"] == pytest.approx(5 / 4)
    assert found["mae"] == pytest.approx(3 / 4)
    assert found["r2"] == pytest.approx(1 - 5 / 14)
    labels = torch.tensor([[1, 0], [1, 1]])
    logits = torch.tensor([[2.0, -1.0], [-0.5, 3.0]])
    found = score(logits, labels, "multilabel")
    assert found["accuracy"] == 0.75
    p = logits.sigmoid()
    expected = -(torch.where(labels == 1, p, 1 - p).log()).mean().item()
    assert found["nll"] == pytest.approx(expected, rel=1e-6)


def test_evaluate_runs_in_evaluation_mode_on_the_split_it_was_told() -> None:
    x, y = torch.randn(300, 4), torch.arange(300) % 3
    task = Task.from_arrays(x, y)
    network = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 3)).train()
    first, second = evaluate(network, task, "test"), evaluate(network, task, "test")
    assert first == second
    assert network.training
    assert set(first) == {"accuracy", "nll", "brier", "ece"}
    outputs, targets = outputs_of(network, task.test, batch_size=7)
    assert outputs.shape == (len(task.test), 3)
    assert targets.shape == (len(task.test),)


def test_a_network_of_several_outputs_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    task = Task.from_arrays(torch.randn(60, 3), torch.arange(60) % 3)
    with pytest.raises(BadInput, match="tuple"):
        evaluate(Two(), task)
