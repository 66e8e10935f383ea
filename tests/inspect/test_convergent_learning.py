from __future__ import annotations

import copy
import json
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.linear_model import Lasso
from torch import Tensor, nn

from netwright.core.errors import BadInput, NotApplicable
from netwright.core.split import ArraySplit
from netwright.inspect.convergent_learning import ConvergentLearning, _found
from netwright.inspect.convergent_learning.alignment import (
    best_partner,
    block_overlap,
    blocks,
    one_to_one,
    principal_cosines,
    sparse_errors,
    strengths,
)  # fmt: skip
from netwright.inspect.convergent_learning.information import binned, mutual_information


def split(count: int, *shape: int) -> ArraySplit:
    return ArraySplit((torch.randn(count, *shape),), torch.zeros(count).long())


def build(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(8 * 16, 3),
    ).eval()  # fmt: skip


def shuffled(network: nn.Module, order: Tensor, place: int) -> nn.Module:
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[place].weight.copy_(network[place].weight[order])
        other[place].bias.copy_(network[place].bias[order])
        if place == 0:
            other[2].weight.copy_(network[2].weight[:, order])
    return other


def test_a_planted_permutation_is_recovered_by_all_alignments() -> None:
    network, order = build(0), torch.tensor([3, 0, 5, 1, 4, 2])
    other = shuffled(network, order, 0)
    found = ConvergentLearning(points=4000)(network, other, split(200, 2, 8, 8))
    detail = found.data["1: 0 and 1"]
    # unit u of the first is at the place of the second where order says u
    expected = torch.argsort(order).tolist()
    assert detail["partner"] == expected
    assert detail["semi_partner"] == expected
    assert detail["information_partner"] == expected
    row = found.table()[0]
    assert row["matched"] == pytest.approx(1.0, abs=1e-5)
    assert row["error_1_weights"] == pytest.approx(0.0, abs=1e-5)
    assert row["subspace_overlap"] == pytest.approx(1.0, abs=1e-5)
    # behind it nothing is permuted
    assert found.data["3: 0 and 1"]["partner"] == list(range(8))


def test_correlations_equal_those_of_all_activations() -> None:
    one, two, data = build(0), build(1), split(150, 2, 8, 8)
    found = ConvergentLearning(batch_size=32, points=500)(one, two, data)
    x = data.inputs[0]
    a, b = (n[:2](x).movedim(1, -1).reshape(-1, 6).detach().double().numpy() for n in (one, two))
    whole = np.nan_to_num(np.corrcoef(a.T, b.T))
    detail = found.data["1: 0 and 1"]
    assert np.allclose(detail["correlation"], whole[:6, 6:], atol=1e-5)
    off = ~np.eye(6, dtype=bool)
    assert np.allclose(np.array(detail["within_first"])[off], whole[:6, :6][off], atol=1e-5)


def test_semi_matching_is_never_weaker_than_matching() -> None:
    found = ConvergentLearning(points=2000)(build(0), [build(1), build(2)], split(100, 2, 8, 8))
    assert len(found.table()) == 2 * 3
    for row in found.table():
        assert row["semi_matched"] >= row["matched"] - 1e-12
        assert row["semi_matched_information"] >= row["matched_information"] - 1e-12
        errors = [row[f"error_{k}_weights"] for k in (1, 2, 3, 5, 10)]
        assert errors == sorted(errors, reverse=True)


def test_matching_is_the_best_of_all_permutations_and_not_the_greedy_one() -> None:
    strength = np.array([[0.9, 0.8, 0.1], [0.85, 0.1, 0.2], [0.3, 0.2, 0.1]])
    best = max(permutations(range(3)), key=lambda p: sum(strength[i, j] for i, j in enumerate(p)))
    assert one_to_one(strength).tolist() == list(best) == [1, 0, 2]
    assert best_partner(strength).tolist() == [0, 0, 0]
    assert strengths(strength, one_to_one(strength)).tolist() == [0.8, 0.85, 0.1]


def test_information_equals_a_direct_histogram() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 3, generator=generator).relu()
    y = (x[:, :1] + torch.randn(5000, 2, generator=generator)).relu()
    found = mutual_information(binned(x), binned(y), 10)
    for i in range(3):
        for j in range(2):
            codes = []
            for column in (x[:, i].double().numpy(), y[:, j].double().numpy()):
                live = column[column != 0]
                edges = np.quantile(live, np.arange(1, 10) / 10)
                codes.append(np.where(column == 0, 0, 1 + np.searchsorted(edges, column, side="left")))
            table = np.histogram2d(codes[0], codes[1], bins=[np.arange(12) - 0.5] * 2)[0] / 5000
            p, q = table.sum(1, keepdims=True), table.sum(0, keepdims=True)
            filled = table > 0
            plug_in = (table[filled] * np.log(table[filled] / (p * q)[filled])).sum()
            bias = ((p > 0).sum() - 1) * ((q > 0).sum() - 1) / (2 * 5000)
            assert float(found[i, j]) == pytest.approx(plug_in - bias, abs=1e-9)


def test_information_of_independent_and_of_equal_units() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10_000, 4, generator=generator)
    found = mutual_information(binned(x), binned(x), 10)
    assert torch.allclose(found.diagonal(), torch.tensor(10.0).log().double(), atol=0.01)
    off = found[~torch.eye(4, dtype=torch.bool)]
    assert off.abs().max() < 0.004  # without the correction it would be 0.004 on average


def test_sparse_errors_are_scikit_learns_lasso() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(4000, 6)) @ generator.normal(size=(6, 6))
    y = x @ np.array([1.0, 0, 0, 0.7, 0, 0]) + 0.3 * generator.normal(size=4000)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    within, between = x.T @ x / 4000, (x.T @ y / 4000)[:, None]
    found = sparse_errors(within, between, 4000, (1, 2, 6))[0]
    for k, count in enumerate((1, 2, 6)):
        best = 1.0
        for alpha in np.logspace(0, -4, 300):
            weights = Lasso(alpha, tol=1e-8, fit_intercept=False).fit(x, y).coef_
            if (weights != 0).sum() <= count:
                best = min(best, float(((y - x @ weights) ** 2).mean()))
        assert found[k] == pytest.approx(best, abs=0.01)
    # standardised least squares is the end of the path
    left = 1 - between[:, 0] @ np.linalg.solve(within, between[:, 0])
    assert found[2] == pytest.approx(left, abs=1e-3)


def test_principal_cosines_are_scipys() -> None:
    generator = np.random.default_rng(1)
    data = generator.normal(size=(3000, 7)) @ generator.normal(size=(7, 7))
    data -= data.mean(0)
    corr = np.corrcoef(data.T)
    found = principal_cosines(corr[:3, :3], corr[3:, 3:], corr[:3, 3:])
    expected = np.cos(subspace_angles(data[:, :3], data[:, 3:]))
    assert np.allclose(np.sort(found), np.sort(expected), atol=1e-8)


def test_blocks_find_planted_groups_whose_bases_differ() -> None:
    """Two networks hold the same three planes, each in axes turned by 45 degrees."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(5000, 6))
    turn = np.kron(np.eye(3), np.array([[1, -1], [1, 1]]) / np.sqrt(2))
    data = np.concatenate([latent, latent @ turn], 1)
    corr = np.corrcoef(data.T)
    one, two = blocks(corr[:6, 6:], 3, seed=0)
    assert all(one[2 * i] == one[2 * i + 1] == two[2 * i] == two[2 * i + 1] for i in range(3))
    assert len(set(one)) == 3
    for block in block_overlap(corr[:6, :6], corr[6:, 6:], corr[:6, 6:], (one, two)):
        assert block["subspace"] == pytest.approx(1.0, abs=1e-6)
        assert block["units"] == pytest.approx(np.sqrt(0.5), abs=0.02)


def test_units_of_small_affinity_stay_in_their_block() -> None:
    """Rows of eigenvectors are as long as degrees are large; all of them count alike once they have length 1."""
    between, strong = np.zeros((12, 12)), [0.9, 0.9, 0.005, 0.005, 0.005, 0.005]
    between[:6, :6] = np.outer(strong, strong)
    between[6:, 6:] = 0.01
    for labels in blocks(between, 2, 0):
        assert len(set(labels[:6])) == len(set(labels[6:])) == 1
        assert labels[0] != labels[6]


def test_units_of_a_block_are_paired_by_the_size_of_their_correlation() -> None:
    between = np.array([[-0.9, 0.5], [0.4, -0.8]])
    one = (np.zeros(2, int), np.zeros(2, int))
    (found,) = block_overlap(np.eye(2), np.eye(2), between, one)
    assert found["units"] == pytest.approx(0.85)
    assert (found["first"], found["second"]) == (2, 2)
    (wide,) = block_overlap(np.eye(1), np.eye(2), between[:1], (np.zeros(1, int), one[1]))
    assert wide["units"] == pytest.approx(0.9)


def test_dead_units_match_nothing() -> None:
    one, two = build(0), build(1)
    for network in (one, two):
        with torch.no_grad():
            network[0].bias[4] = -1000
    found = ConvergentLearning(points=2000)(one, two, split(80, 2, 8, 8))
    row, detail = found.table()[0], found.data["1: 0 and 1"]
    assert row["dead"] == 2
    assert np.abs(np.array(detail["correlation"])[4]).max() == 0
    assert abs(detail["information"][4][4]) < 1e-9
    json.dumps(found.to_json(), allow_nan=False)


def test_memory_is_a_sample_and_a_matrix() -> None:
    """Twice the data, as many rows kept."""
    for count in (200, 800):
        method = ConvergentLearning(points=1000)
        network, data = build(0), split(count, 2, 8, 8)
        found = method._layers([network, build(1)], data)
        records = method._record([network, build(1)], found, data)
        for record in records:
            assert 990 <= sum(len(r) for r in record.rows) <= 1000
            assert all(r.untyped_storage().nbytes() == r.nbytes for r in record.rows)


def test_the_sample_is_drawn_by_the_seed_and_by_nothing_else() -> None:
    data, first, second = split(40, 2, 8, 8), build(0), build(1)

    def information(seed: int, elsewhere: int) -> list[list[float]]:
        torch.manual_seed(elsewhere)
        found = ConvergentLearning(points=300, seed=seed)(first, second, data)
        return found.data["1: 0 and 1"]["information"]

    assert information(0, 1) == information(0, 2)
    assert information(0, 1) != information(1, 1)


def test_default_layers_and_refusals() -> None:
    relu = ConvergentLearning(points=200)(build(0), build(1), split(40, 2, 8, 8))
    assert {r["layer"] for r in relu.table()} == {"1", "3"}
    plain = lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    assert {r["layer"] for r in ConvergentLearning()(plain(), plain(), split(40, 4)).table()} == {"0"}
    longer = lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(3, 2))
    assert {r["layer"] for r in ConvergentLearning()(longer(), longer(), split(40, 4)).table()} == {"0", "1"}
    with pytest.raises(NotApplicable, match="same shape"):
        ConvergentLearning()(plain(), nn.Linear(4, 2), split(40, 4))
    with pytest.raises(BadInput, match="two networks"):
        ConvergentLearning()(plain(), [], split(40, 4))


def test_plot_names_the_layers() -> None:
    found = ConvergentLearning(points=200)(build(0), build(1), split(40, 2, 8, 8))
    assert "subspace overlap" in found.plot().to_json()


def test_the_finding_is_said_in_a_sentence() -> None:
    network = build(0)
    found = ConvergentLearning()(network, copy.deepcopy(network), split(60, 2, 8, 8))
    assert found.sentence.startswith("Matched one to one, the networks' units correlate by 1.00 on average")


def test_the_weakest_layer_is_named_and_every_layer_drawn() -> None:
    row = lambda layer, value: {
        "layer": layer, "matched": value, "semi_matched": value + 0.1, "subspace_overlap": 0.5, "unit_overlap": 0.25,
    }  # fmt: skip
    found = _found([row("a", 0.8), row("b", 0.2), row("a", 0.6)], {}, 10)
    assert "least in b (0.20)" in found.sentence
    bars = {bar.name: (list(bar.x), list(bar.y)) for bar in found.plot().data}
    assert bars["matched"][0] == ["a", "b"]
    assert bars["matched"][1] == pytest.approx([0.7, 0.2])
    assert bars["unit overlap"][1] == pytest.approx([0.25, 0.25])
