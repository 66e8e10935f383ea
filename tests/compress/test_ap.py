"""Activate while pruning: which weights go, what they go back to, and which units are silent."""

import itertools

import numpy as np
import pytest
import torch
from tests.conformance.networks import subject
from torch import nn

from netwright.compress.ap import AP, DeadNeurons, dead_neurons, lamp, lowest, prunable
from netwright.compress.parts.masks import masks_of
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.task import Task

SHORT = Fit(epochs=1, lr=1e-2)


def problem(seed: int = 0) -> tuple[nn.Module, Task]:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3)
    ).eval()
    x = torch.randn(300, 8)
    return network, Task.from_arrays(x, (x[:, :3]).argmax(1))


def test_what_goes_is_small_or_negative_and_slow() -> None:
    start = {
        "a": torch.tensor([0.1, -1.0, 2.0, -3.0, 0.2]),
        "b": torch.tensor([[-0.5, 4.0, -2.0, 0.0, -0.05]]),
    }
    end = {
        "a": torch.tensor([0.3, -1.1, 2.0, -3.0, 0.1]),
        "b": torch.tensor([[-0.9, 4.0, -2.5, 0.02, -0.06]]),
    }
    masks = {"a": torch.tensor([1.0, 1, 1, 1, 1]), "b": torch.tensor([[1.0, 1, 1, 1, 0]])}
    # 9 are left; 4 go: by magnitude 0.02 and 0.1, then of -1.1, -3, -0.9, -2.5 those that moved least: by 0 and 0.1
    found = AP(share=4 / 9, active=2 / 9).next_masks(masks, start, end)
    assert found["a"].tolist() == [1, 0, 1, 0, 0]
    assert found["b"].tolist() == [[1, 1, 1, 0, 0]]
    assert masks["a"].sum() == 5
    plain = AP(share=4 / 9, active=0.0).next_masks(masks, start, end)
    assert plain["a"].tolist() == [0, 1, 1, 1, 0]
    assert plain["b"].tolist() == [[0, 1, 1, 0, 0]]
    every = AP(share=5 / 9, active=5 / 9).next_masks(
        masks, start, end
    )  # four negative ones are all there are
    assert float(every["a"].sum() + every["b"].sum()) == 5


def test_the_lowest_of_some() -> None:
    scores, among = torch.tensor([3.0, 1, 2, 1, 0]), torch.tensor([True, True, True, True, False])
    assert lowest(scores, among, 2).tolist() == [False, True, False, True, False]
    assert lowest(scores, among, 9).tolist() == among.tolist()
    assert not lowest(scores, among, 0).any()


def test_lamp_is_its_definition() -> None:
    w = torch.randn(40, generator=torch.Generator().manual_seed(0))
    expected = [float(a**2 / sum(b**2 for b in w if b**2 >= a**2)) for a in w]
    assert torch.allclose(lamp(w), torch.tensor(expected).double(), rtol=1e-5)
    assert lamp(w).max() == 1.0
    masks = {"a": torch.ones(40), "b": torch.ones(40)}
    weights = {"a": w, "b": 100 * w}  # the scale of a layer does not matter
    found = AP(share=0.5, active=0.0, base="lamp").next_masks(masks, weights, weights)
    assert torch.equal(found["a"], found["b"])
    by_size = AP(share=0.5, active=0.0).next_masks(masks, weights, weights)
    assert by_size["b"].sum() > 1.5 * by_size["a"].sum()


@pytest.mark.parametrize("rewind", ["given", "new", "fresh"])
def test_weights_that_stay_go_back_to_where_they_began(rewind, monkeypatch) -> None:
    network, task = problem()
    begun, original = [], Fit.__call__

    def spy(self, net, *args, **kwargs):
        begun.append({n: net.get_submodule(n).weight.detach().clone() for n in ("0", "1", "3", "5")})
        return original(self, net, *args, **kwargs)

    monkeypatch.setattr(Fit, "__call__", spy)
    AP(cycles=2, share=0.5, active=0.1, rewind=rewind, fit=SHORT, seed=3)(network, task, Budget())
    assert len(begun) == 3
    for cycle in (1, 2):
        for name in ("0", "3", "5"):
            now, first = begun[cycle][name], begun[0][name]
            stays = now != 0
            assert 0 < stays.float().mean() < 1
            same = torch.equal(now[stays], first[stays])
            assert same is (rewind != "fresh")
        assert torch.equal(begun[cycle]["1"], network[1].weight if rewind == "given" else torch.ones(12))
    given = torch.equal(begun[0]["0"], network[0].weight)
    assert given is (rewind == "given")


def test_density_falls_by_the_share_and_the_result_is_plain() -> None:
    network, task = problem()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    seen = []
    method = AP(cycles=3, share=0.3, active=0.05, fit=SHORT)
    thin = method.masked(network, task, Budget(), lambda net, left: seen.append((masks_of(net), left)))
    total = sum(m.numel() for m in seen[0][0].values())
    assert total == 8 * 12 + 12 * 10 + 10 * 3
    left = float(total)
    for masks, told in seen:
        assert told == pytest.approx(left / total)
        assert sum(float(m.sum()) for m in masks.values()) == left
        left -= round(left * 0.3)
    for (later, _), (earlier, _) in itertools.pairwise(reversed(seen)):
        assert all(bool((later[name] <= earlier[name]).all()) for name in later)
    plain = method(network, task, Budget())
    assert set(plain.state_dict()) == set(before)
    x = task.example(40)
    assert torch.allclose(plain(*x), thin(*x), atol=1e-6)
    assert torch.equal(plain[0].weight == 0, masks_of(thin)["0"] == 0)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_each_training_has_its_part_of_the_budget_and_an_early_end_leaves_more() -> None:
    network, task = problem()
    meters = []
    method = AP(cycles=3, share=0.5, fit=Fit(epochs=50))
    budget = Budget(epochs=8)
    begin = Budget.start
    try:
        Budget.start = lambda self: (meters.append(begin(self)), meters[-1])[1]
        thin = method.masked(network, task, budget)
    finally:
        Budget.start = begin
    assert meters[0].epochs == pytest.approx(8, abs=0.1)
    assert [m.epochs for m in meters[1:]] == pytest.approx([2, 2, 2, 2], abs=0.1)
    assert float(masks_of(thin)["0"].mean()) < 0.4
    none = method.masked(network, task, Budget(seconds=0))
    assert all(bool((m == 1).all()) for m in masks_of(none).values())


def test_seeds() -> None:
    network, task = problem()
    made = [
        AP(cycles=1, base="random", fit=SHORT, seed=s)(network, task, Budget())[0].weight for s in (0, 0, 1)
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0] == 0, made[2] == 0)


class Silent(nn.Module):
    """Units 0: nothing comes in, bias below zero. 1: nothing comes in, bias above zero. 2: silenced by its bias alone.
    3: alive for half of the inputs."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.make, self.relu, self.head = nn.Conv2d(1, 4, 1), nn.ReLU(inplace), nn.Linear(4, 2)
        with torch.no_grad():
            self.make.weight.copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]).view(4, 1, 1, 1))
            self.make.bias.copy_(torch.tensor([-1.0, 1.0, -100.0, 0.0]))

    def forward(self, x):
        return self.head(self.relu(self.make(x)).mean((2, 3)))


@pytest.mark.parametrize("inplace", [False, True])
def test_dead_neurons_of_a_known_network(inplace) -> None:
    x = torch.randn(500, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    split = Task.from_arrays(x, torch.arange(500) % 2).train
    values = torch.cat([inputs for inputs, _ in split.batches(100)])
    found = dead_neurons(Silent(inplace), split, 64)
    negative = float((values <= 0).double().mean())
    assert found.rate == pytest.approx((2 + negative) / 4)
    assert found.static == pytest.approx(1 / 4)
    assert found.dynamic == pytest.approx((1 + negative) / 4)
    assert found == DeadNeurons(found.rate, found.static)


def test_units_of_sequences_lie_along_the_last_dimension() -> None:
    layer = nn.Linear(3, 4)
    with torch.no_grad():
        layer.weight[0], layer.bias[0] = 0.0, -1.0
    x = torch.randn(200, 5, 3, generator=torch.Generator().manual_seed(0))
    split = Task.from_arrays(x, torch.arange(200) % 2).train
    assert dead_neurons(nn.Sequential(layer, nn.ReLU()), split).static == pytest.approx(1 / 4)


def test_dead_neurons_of_a_relu_that_runs_twice() -> None:
    network, task = problem()
    shared = nn.ReLU()
    network[2] = network[4] = shared
    outputs = []
    handle = shared.register_forward_hook(
        lambda _, __, out: outputs.append((out == 0).double().numpy().ravel())
    )
    for inputs, _ in task.train.batches(1000):
        network(inputs)
    handle.remove()
    assert dead_neurons(network, task.train).rate == pytest.approx(np.concatenate(outputs).mean())
    with pytest.raises(NotApplicable, match="ReLU"):
        dead_neurons(nn.Linear(8, 3), task.train)


@pytest.mark.parametrize(
    "settings",
    [{"share": 1.0}, {"active": 0.3}, {"active": -0.1}, {"cycles": 0}, {"base": "x"}, {"rewind": "x"}],
)
def test_settings_that_make_no_sense(settings) -> None:
    network, task = problem()
    with pytest.raises(BadInput):
        AP(**settings)(network, task, Budget())


def test_what_has_no_weights_to_mask_or_shares_them_is_refused() -> None:
    with pytest.raises(NotApplicable, match="convolutions or linear"):
        prunable(nn.Sequential(nn.ReLU()))
    with pytest.raises(NotApplicable, match="share a weight"):
        prunable(subject("shared")[0])
