"""Trees against SciPy and brute force, sums along them against direct ones, the loss against counted bits."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from netwright.compress.bibench import BiBench
from netwright.compress.mst_bnn import MstBnn, plans, reusing
from netwright.compress.mst_bnn.layers import Reused
from netwright.compress.mst_bnn.training import Drawn, edges, layers, length, signs_of
from netwright.compress.mst_bnn.tree import Tree, at_random, distances, minimum, plan, rooted
from netwright.compress.parts.binary import OPERATORS, learning, packed
from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.network import seeded
from netwright.core.progress import remarks
from netwright.core.task import Task
from netwright.core.weights.binary import BinaryConv, BinaryLinear, PackedSigns


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def signs(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.where(draw(*shape, seed=seed) >= 0, 1.0, -1.0)


def total(tree: Tree, between: torch.Tensor) -> int:
    return sum(int(between[a, b]) for a, b in zip(*tree.edges(), strict=True))


def test_distances_are_counted_bits():
    rows = signs(7, 33)
    expected = [[int((a != b).sum()) for b in rows] for a in rows]
    assert distances(rows).tolist() == expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [6, 40])  # few signs: many edges of the same length
def test_trees_are_minimal_and_seen_from_their_centre(seed, n):
    between = distances(signs(20, n, seed=seed))
    tree = minimum(between)
    shifted = minimum_spanning_tree(between.numpy() + 1.0)  # SciPy takes 0 for no edge
    assert total(tree, between) == int(shifted.sum()) - 19
    graph = nx.Graph(zip(*(t.tolist() for t in tree.edges()), strict=True))
    assert nx.is_tree(graph)
    assert len(graph) == 20
    assert tree.root in nx.center(graph)
    assert tree.depth == nx.radius(graph)
    far = nx.shortest_path_length(graph, tree.root)
    assert [far[c] for c in tree.order.tolist()] == sorted(far.values())
    for a, b in zip(*tree.edges(), strict=True):
        assert far[int(b)] == far[int(a)] + 1


def test_ties_are_broken_by_depth():
    equal = 1 - torch.eye(9, dtype=torch.int64)
    assert minimum(equal).depth == 1  # a star, where a path would do as well
    # two channels alike at either end of a chain that could be bent: hang on the nearest to the middle
    rows = torch.ones(6, 4)
    rows[1, 0] = rows[2, 1] = rows[3, 2] = rows[4, 3] = -1
    rows[5, :2] = -1
    tree = minimum(distances(rows))
    assert (tree.root, tree.depth) == (0, 2)
    assert minimum(torch.zeros(1, 1, dtype=torch.int64)).depth == 0


def test_a_path_is_rooted_in_its_middle():
    tree = rooted([(0, 1), (1, 2), (2, 3), (3, 4)], 5)
    assert (tree.root, tree.depth) == (2, 2)
    assert tree.parent.tolist() == [1, 2, 2, 2, 3]


def test_a_plan_gives_the_sums_by_as_few_additions_as_it_says():
    rows, x = signs(9, 30), signs(30, seed=1)
    tree = minimum(distances(rows))
    found, y, additions = plan(rows, tree), {}, 0
    for i, channel in enumerate(tree.order.tolist()):
        plus = found.positions[found.starts[i] : found.middles[i]]
        minus = found.positions[found.middles[i] : found.ends[i]]
        change = float(x[plus].sum() - x[minus].sum())
        root = channel == tree.root
        y[channel] = change if root else y[int(tree.parent[channel])] + 2 * change
        additions += len(plus) + len(minus)
    assert [y[c] for c in range(9)] == (rows @ x).tolist()
    assert found.operations == additions == 30 + total(tree, distances(rows))
    assert found.direct == 9 * 30


CASES = [
    (BinaryConv(draw(9, 5, 3, 3), draw(5), draw(9), draw(9), padding=(1, 1)), (2, 5, 7, 6)),
    (BinaryConv(draw(4, 3, 3, 5), draw(3), draw(4), None, (2, 1), (0, 2), (1, 2)), (3, 3, 40, 20)),
    (BinaryConv(draw(6, 4, 3), draw(4), draw(6), None, (1,), (1,), (1,)), (2, 4, 9)),
    (BinaryLinear(draw(12, 70), draw(70), draw(12), draw(12)), (3, 2, 70)),
]


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda v: str(getattr(v, "shape", v)))
def test_reused_sums_are_the_direct_ones_to_the_bit(layer, shape):
    x, rows = draw(*shape, seed=3), layer.weight().flatten(1)
    for tree in (minimum(distances(rows)), at_random(len(rows), 1)):
        made = Reused(layer, tree)
        assert torch.equal(made.sums(x), layer.sums(x))
        assert torch.equal(made(x), layer(x))
        with FlopCounterMode(display=False) as counter:
            expected = layer.sums(x)
        direct = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            made.sums(x)
        found = made.plan()
        assert counter.get_total_flops() * found.direct == direct * found.operations
        x.requires_grad_()
        assert torch.equal(made(x), layer.finished(expected))
        x = x.detach()


def test_sums_that_16_bits_cannot_hold_are_computed_directly():
    for n in (2**15 - 1, 2**15):
        layer = BinaryLinear(torch.ones(2, n), torch.zeros(n), torch.ones(2))
        made = Reused(layer, minimum(distances(layer.weight())))
        assert made(torch.ones(1, n)).tolist() == [[n, n]]


def test_random_trees_are_trees_that_differ():
    parents = [at_random(12, seed).parent.tolist() for seed in (0, 0, 1)]
    assert parents[0] == parents[1] != parents[2]
    graph = nx.Graph((i, p) for i, p in enumerate(parents[0]) if i != p)
    assert nx.is_tree(graph)
    assert len(graph) == 12


@pytest.fixture(scope="module")
def noise() -> tuple[nn.Module, Task]:
    x = draw(96, 2, 6, 6)
    task = Task.from_arrays(x, (x[:, 0].mean((1, 2)) > 0).long(), name="mean", meaning="image")
    with seeded(0):
        network = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip
    return network.eval(), task


def test_the_length_is_that_of_the_tree_and_its_gradient_draws_kernels_together(noise):
    network, task = noise
    layer = layers(learning(network, task, OPERATORS["bireal"], 0))[0]
    rows = signs_of(layer)
    assert torch.equal(rows.detach(), packed_rows(layer))
    between = distances(rows.detach())
    for towards in ("tree", "centre"):
        pairs = edges(layer, towards)
        found = length(layer, pairs)
        assert len(pairs[0]) == 7
        expected = [int(between[a, b]) / 54 for a, b in zip(*pairs, strict=True)]
        assert found.item() == pytest.approx(sum(expected) / 7)
    assert sum(expected) == pytest.approx(float(between.sum(1).min()) / 54)  # 'centre'
    latent = layer.parametrizations.weight.original
    with torch.no_grad():
        latent[0, 0, 0, 0] = 3.0  # out of reach
    gradient = torch.autograd.grad(length(layer, pairs), latent)[0].flatten(1)
    a, b = pairs
    by_hand = torch.zeros_like(gradient)
    rows = signs_of(layer).detach()
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        by_hand[i] -= rows[j] / (2 * 54 * 7)
        by_hand[j] -= rows[i] / (2 * 54 * 7)
    by_hand[0, 0] = 0
    torch.testing.assert_close(gradient, by_hand)
    none = torch.zeros(0, dtype=torch.int64)
    assert length(layer, (none, none)).item() == 0  # one output, and nothing to draw it to


def packed_rows(layer: nn.Module) -> torch.Tensor:
    return next(m for m in layer.packed().modules() if isinstance(m, PackedSigns)).weight().flatten(1)


def test_the_penalty_begins_after_the_warm_up_and_holds_its_edges(noise, monkeypatch):
    network, task = noise
    subject = learning(network, task, OPERATORS["bireal"], 0).train()
    x, y = next(task.train.batches(8))
    plain = task.loss(subject(x), y)
    asked = []
    layer = layers(subject)[0]
    monkeypatch.setattr(
        "netwright.compress.mst_bnn.training.edges",
        lambda m, towards: asked.append(towards) or edges(m, towards),
    )
    loss = Drawn(task, 0.5, warm=2, every=2, towards="tree")
    values = [loss(subject, x, y) for _ in range(5)]
    expected = plain + 0.5 * length(layer, edges(layer, "tree"))
    for value, wanted in zip(values, (plain, plain, expected, expected, expected), strict=True):
        torch.testing.assert_close(value, wanted)
    assert asked == ["tree", "tree"]


def test_training_shortens_the_tree(noise):
    network, task = noise
    ops = {}
    for penalty in (0.0, 1.0):
        method = MstBnn(penalty=penalty, warm=0.0, every=3, epochs=8, batch_size=16, lr=2e-2)
        with remarks() as said:
            made = method(network, task, Budget())
        (found,) = plans(made).values()
        ops[penalty] = found.operations
        assert f"{100 * found.operations / found.direct:.1f} %" in said[0]
    assert ops[1.0] < 0.8 * ops[0.0]
    assert found.direct == 8 * 54


def test_what_is_binary_already_is_planned_or_trained_on(noise):
    network, task = noise
    learnt, made = BiBench("bnn", epochs=1, batch_size=32).pair(network, task, Budget())
    x = task.example(6)[0]
    planned = MstBnn()(made, task, Budget())
    assert torch.equal(planned(x), made(x))
    assert torch.equal(reusing(made)(x), made(x))
    assert plans(planned).keys() == {"2"}
    again = MstBnn(operator="recu", penalty=0.0, epochs=0.01, lr=1e-9, batch_size=64)(learnt, task, Budget())
    assert torch.equal(again[2].rows(), planned[2].rows())  # the operator that it has, and its weights
    for wrong, name in (({"operator": "x"}, "bireal"), ({"towards": "x"}, "centre"), ({"warm": 2}, "share")):
        with pytest.raises(BadInput, match=name):
            MstBnn(**wrong)(network, task, Budget())
    assert len(packed(learnt).state_dict()) < len(planned.state_dict())


def test_minimum_is_minimal_among_all_trees():
    between = distances(signs(5, 9, seed=2))
    pairs = list(itertools.combinations(range(5), 2))
    best = min(
        sum(int(between[a, b]) for a, b in chosen)
        for chosen in itertools.combinations(pairs, 4)
        if nx.is_connected(nx.Graph([*chosen, *((i, i) for i in range(5))]))
    )
    assert total(minimum(between), between) == best
    assert np.isfinite(best)
