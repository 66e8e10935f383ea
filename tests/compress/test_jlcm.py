"""Learned codebooks: the order of units, the learning against brute force and least squares, the packed twin."""

import itertools
import time

import pytest
import torch
from tests.conformance.networks import subject
from torch import nn

from netwright.compress.jlcm import (
    JLCM,
    _Mixed,
    arranged,
    between,
    clustered,
    fitted,
    lead,
    runs_of,
    shape_of,
)
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.measure.cost import stored_bytes
from netwright.core.network import call
from netwright.core.task import Task
from netwright.core.weights.bits import PackedBits
from netwright.core.weights.grids import Codebook
from netwright.core.weights.ranges import minmax


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def output_error(weight: torch.Tensor, seed: int = 1):
    """Mean squared error of a linear layer's output, whose inputs go together."""
    x = noise(400, weight.shape[1], seed=seed) @ (
        torch.eye(weight.shape[1]) + 0.5 * noise(*2 * weight.shape[1:], seed=2)
    )
    return lambda rows: ((rows - weight) @ x.T).square().sum(0).mean()


def test_units_of_different_spread_come_to_lie_together_and_nothing_changes() -> None:
    network = nn.Sequential(
        nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 3)
    ).eval()
    wide = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:16]
    with torch.no_grad():
        network[0].weight.copy_(noise(40, 30))
        network[0].weight[wide] *= 30
    x = noise(50, 30, seed=3)
    task = Task.from_arrays(x, torch.arange(50) % 3)
    ordered, clusters = arranged(network, task, JLCM(bits=2, codebooks=2))
    assert torch.allclose(ordered(x), network(x), rtol=1e-4, atol=1e-4)
    spread = ordered.get_parameter("0.weight").std(1)
    assert (spread[:24].max() < spread[24:].min()).item()
    assert clusters["0.weight"].tolist() == [0] * 24 + [1] * 16
    assert "4.weight" not in clusters  # classes stay in their order
    assert not arranged(network, task, JLCM(codebooks=1))[1]


def test_a_residual_network_shares_its_order_and_computes_the_same() -> None:
    network, task = subject("residual")
    ordered, clusters = arranged(network, task, JLCM(bits=2, codebooks=3))
    x = task.example(20)
    with torch.no_grad():
        assert torch.allclose(call(ordered, x), call(network, x), atol=1e-5)
    assert len(clusters) >= 2
    assert all(torch.equal(c, c.sort().values) for c in clusters.values())
    moved = [n for n, w in ordered.named_parameters() if not torch.equal(w, network.get_parameter(n))]
    assert moved


def test_features_are_spread_and_kurtosis_in_units_of_their_own() -> None:
    w = torch.stack(
        [noise(5000), 4 * noise(5000, seed=1), noise(5000, seed=2).sign() * 2, noise(5000, seed=3) ** 3]
    )
    found = shape_of(w, torch.arange(4)[:, None])
    log = torch.tensor([1.0, 4.0, 2.0, 15**0.5]).log().double()
    expected = (log - log.mean()) / log.std(correction=0)
    assert torch.allclose(found[:, 0], expected, atol=0.05)
    flat = torch.tensor([3.0, 3.0, 1.0]).double()  # of normal and of two-valued numbers
    three = shape_of(w[:3], torch.arange(3)[:, None])[:, 1]
    assert torch.allclose(three, (flat - flat.mean()) / flat.std(correction=0), atol=0.1)
    pairs = shape_of(torch.cat([w[:2], w[:2]]), torch.tensor([[0, 2], [1, 3]]))  # two rows for each unit
    assert torch.allclose(pairs[:, 0], torch.tensor([-1.0, 1.0]).double())


def test_clusters_are_numbered_by_their_spread_and_may_be_fewer() -> None:
    features = torch.tensor([[5.0, 0], [-1, 0], [5.1, 0], [-1.1, 0], [2, 0]]).double()
    assert clustered(features, 3, 0).tolist() == [2, 0, 2, 0, 1]
    assert set(clustered(torch.zeros(6, 2).double(), 3, 0).tolist()) <= {0, 1, 2}


def test_runs() -> None:
    assert runs_of(torch.tensor([0, 0, 1, 1, 1, 2]), 6, 4) == (2, 3, 1)
    assert runs_of(torch.tensor([0, 1, 0, 1, 0, 1]), 6, 4) == (2, 2, 2)  # too many: even parts
    assert runs_of(None, 7, 3) == (3, 3, 1)
    method = JLCM(bits=2, codebooks=4)
    assert method.affordable(torch.empty(64, 100)) == 4
    assert method.affordable(torch.empty(64, 6)) == 3  # 768 bits of indices, 64 for each codebook's values
    assert method.affordable(torch.empty(2, 3)) == 1
    assert method.affordable(torch.empty(3, 1000)) == 3


def test_indices_come_near_the_best_of_all_mappings() -> None:
    """Each of the 64 mappings gets the values that suit it best; of what can be won, half is won at least."""
    grid, of = Codebook(1, runs=(1, 1)), torch.arange(2)
    won = []
    for seed in range(4):
        w = noise(2, 3, seed=10 + seed)
        error, near = output_error(w), grid.quantise(w, minmax)
        every = [torch.tensor(codes).view(2, 3) for codes in itertools.product((0, 1), repeat=6)]
        best = min(error(fitted(c, near.levels, of, error).gather(1, c)).item() for c in every)
        found = JLCM(bits=1, steps=300).learned(w, near, (1, 1), error, 1e9)
        start, reached = error(near.values()).item(), error(found.values()).item()
        assert best * 0.99 <= reached <= start
        won.append((start - reached) / (start - best))
        assert torch.equal(found.levels, found.levels.half().float())
    assert sum(won) / len(won) > 0.5


def test_values_for_given_indices_are_those_of_least_squares() -> None:
    w = noise(16, 12) * torch.tensor([1.0, 5.0]).repeat_interleave(8)[:, None]
    x = noise(300, 12, seed=1) @ (torch.eye(12) + 0.5 * noise(12, 12, seed=2))
    error = lambda rows: ((rows - w) @ x.T).square().sum(0).mean()
    near = Codebook(2, runs=(8, 8)).quantise(w, minmax)
    codes, of = near.codes.long(), torch.arange(2).repeat_interleave(8)
    codes[codes == 3] = 2  # the last value is nobody's
    found = fitted(codes, near.levels[[0, 8]], of, error)
    for run in (0, 1):
        hot = nn.functional.one_hot(codes[of == run], 4).double()  # (8, 12, 4)
        design = torch.einsum("sn,onk->sok", x.double(), hot).flatten(0, 1)
        wanted = (x.double() @ w[of == run].double().T).flatten()
        exact = torch.linalg.lstsq(design[:, :3], wanted[:, None]).solution[:, 0]
        assert torch.allclose(found[run, :3].double(), exact, atol=1e-3)
        assert found[run, 3] == near.levels[8 * run, 3]


def test_a_mapping_begins_at_the_weight_and_ends_hard() -> None:
    levels = torch.tensor([[-1.0, 0.0, 2.0, 3.0]])
    rows = torch.tensor([[-0.5, 0.5, 2.9, -4.0, 7.0, 0.0]])
    shares = between(rows, levels)
    mixed = (shares * levels[:, None, :]).sum(2) / shares.sum(2)
    assert torch.allclose(mixed[0, :3], rows[0, :3], atol=0.12)
    assert shares.argmax(2).tolist() == [[0, 1, 3, 0, 3, 1]] or shares.argmax(2).tolist() == [
        [1, 1, 3, 0, 3, 1]
    ]
    assert shares.amin() == pytest.approx(0.01)
    assert shares[0, 1].tolist() == pytest.approx([0.01, 0.75, 0.25, 0.01])
    assert lead(torch.tensor([[[0.0, 0.0, -50.0], [50.0, 0.0, 0.0]]])).tolist()[0] == pytest.approx(
        [0, 1], abs=1e-6
    )


@pytest.mark.parametrize("proximal", [False, True])
def test_the_mixs_gradients(proximal) -> None:
    logits, values = noise(3, 5, 4).double().requires_grad_(), noise(3, 4, seed=1).double().requires_grad_()
    slope = noise(3, 5, seed=2).double()
    mixed = _Mixed.apply(logits, values, proximal)
    plain = torch.einsum("onk,ok->on", logits.softmax(2), values)
    assert torch.allclose(mixed, plain)
    given = torch.autograd.grad((mixed * slope).sum(), (logits, values))
    expected = torch.autograd.grad((plain * slope).sum(), (logits, values))
    assert torch.allclose(given[1], expected[1])
    if not proximal:
        assert torch.allclose(given[0], expected[0])
        return
    assert torch.equal(given[0].sign(), expected[0].sign())
    gap = (values[:, None, :] - plain[..., None]).abs()
    force = given[0].abs() / (slope[..., None].abs() * logits.softmax(2))
    assert torch.allclose(force, 1 / (gap + 0.5))


def test_learning_leaves_a_half_of_the_error_and_time_ends_it() -> None:
    w = noise(16, 20)
    error, near = output_error(w), Codebook(2, runs=(8, 8)).quantise(w, minmax)
    start = error(near.values()).item()
    at = lambda seconds, **settings: JLCM(bits=2, steps=300, **settings).learned(
        w, near, (8, 8), error, seconds
    )
    for gradient in ("plain", "proximal"):
        assert error(at(1e9, gradient=gradient).values()).item() < 0.6 * start
    assert error(at(1e9, lr=0.0).values()).item() > 0.8 * start  # values alone
    stopped = error(at(-1.0).values()).item()  # the first mapping, its values fitted
    assert 0.8 * start < stopped <= start


@pytest.mark.parametrize(("name", "ends"), [("residual", 2), ("lstm", 1)])  # an LSTM before one linear layer
def test_packed_network_is_the_simulated_one_to_the_bit(name, ends) -> None:
    network, task = subject(name)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    simulated, packed = JLCM(steps=30, examples=64).pair(network, task, Budget())
    x = task.example(30)
    with torch.no_grad():
        assert torch.equal(call(simulated, x), call(packed, x))
    assert stored_bytes(packed) < 0.6 * stored_bytes(simulated)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    layers = [m for m in packed.modules() if isinstance(m, PackedBits)]
    assert sum(m.bits == 8 for m in layers) == ends
    assert all(m.bits == 8 or len(m.runs) <= 4 for m in layers)
    assert any(len(m.runs) > 1 for m in layers)


def test_learning_lowers_the_error_of_the_whole_network() -> None:
    network, task = subject("bare")
    x = task.example(100)
    with torch.no_grad():
        truth = call(network, x)
        error = lambda **s: (
            (call(JLCM(bits=2, examples=96, **s)(network, task, Budget()), x) - truth).norm().item()
        )
        learned = error(steps=40)
        assert learned < 0.95 * error(steps=0)
        assert error(steps=40) == learned


def test_a_spent_budget_learns_no_indices() -> None:
    network, task = subject("bare")
    x = task.example(20)
    with torch.no_grad():
        begun = time.monotonic()
        quick = call(JLCM(examples=64, steps=10**6)(network, task, Budget(seconds=0)), x)
        assert time.monotonic() - begun < 60
        assert torch.equal(quick, call(JLCM(examples=64, steps=0)(network, task, Budget()), x))


@pytest.mark.parametrize("settings", [{"bits": 0}, {"bits": 7}, {"codebooks": 0}, {"gradient": "steep"}])
def test_settings_out_of_range_are_refused(settings) -> None:
    network, task = subject("bare")
    with pytest.raises(BadInput):
        JLCM(**settings)(network, task, Budget())


def test_a_network_without_weights_is_refused() -> None:
    task = Task.from_arrays(noise(40, 3), torch.arange(40) % 3)
    with pytest.raises(NotApplicable, match="no convolution"):
        JLCM()(nn.Sequential(nn.ReLU()), task, Budget())
