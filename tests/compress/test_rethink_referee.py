"""The arms of the comparison: what each starts from, how long it trains, what it is charged."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from netwright.compress.parts.masks import masks_of
from netwright.compress.rethink import Referee
from netwright.compress.rethink import referee as module
from netwright.compress.rethink.pruners import (
    by_filters,
    by_scales,
    by_weights,
    macs_of,
    renewed,
    slimming_loss,
)
from netwright.compress.rethink.table import summed
from netwright.core.budget import within
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.graph import dependencies, trace
from netwright.core.graph.importance import filters
from netwright.core.measure.cost import cost
from netwright.core.task import Task
from netwright.models import build


@pytest.fixture(scope="module")
def task() -> Task:
    """Two classes: the bright half is on the left or on the right."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 2
    x = 0.5 * torch.randn(240, 1, 8, 8, generator=generator)
    x[y == 0, :, :, :4] += 1
    x[y == 1, :, :, 4:] += 1
    return Task.from_arrays(x, y, name="halves")


def network(widths=(8, 12)) -> nn.Module:
    torch.manual_seed(1)
    net = build("cnn", (1, 8, 8), 2, widths=widths)
    for norm in (net.norm1, net.norm2):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    return net.eval()


def effective(layer: nn.Module) -> torch.Tensor:
    return layer.weight.detach()


def test_filters_of_the_smallest_norm_go_the_same_share_of_every_layer(task) -> None:
    net = network()
    small = by_filters(net, task, 0.6)
    kept = [small.conv1.out_channels, small.conv2.out_channels]
    assert kept[0] / 8 == pytest.approx(kept[1] / 12, abs=0.09)
    assert cost(small, task.example()).macs <= 0.4 * cost(net, task.example()).macs
    strongest = net.conv1.weight.abs().sum((1, 2, 3)).topk(kept[0]).indices.sort().values
    assert torch.equal(small.conv1.weight, net.conv1.weight[strongest])
    second = net.conv2.weight.abs().sum((1, 2, 3)).topk(kept[1]).indices.sort().values
    assert torch.equal(small.conv2.weight, net.conv2.weight[second][:, strongest])


def test_a_filter_s_norm_leaves_out_what_reads_it() -> None:
    net = network()
    found = dependencies(trace(net, torch.randn(2, 1, 8, 8)))
    scores = filters(net, found.groups)
    torch.testing.assert_close(scores["conv1"], net.conv1.weight.detach().abs().sum((1, 2, 3)))
    torch.testing.assert_close(scores["conv2"], net.conv2.weight.detach().abs().sum((1, 2, 3)))


def test_slimming_has_one_threshold_for_all_scales(task) -> None:
    net = network()
    with torch.no_grad():
        net.norm1.weight.copy_(-torch.linspace(0.9, 1.6, 8))  # the size counts, not the sign
        net.norm2.weight.copy_(torch.cat([torch.linspace(0.01, 0.08, 8), torch.tensor([1.0, 1.1, 1.2, 1.3])]))
    small = by_scales(net, task, 0.5)
    assert small.conv1.out_channels == 8
    assert small.conv2.out_channels < 9
    assert torch.equal(small.norm2.weight, net.norm2.weight[12 - small.conv2.out_channels :])
    plain = build("cnn", (1, 8, 8), 2, widths=(8, 12), norm=False)
    with pytest.raises(NotApplicable, match="batch norm"):
        by_scales(plain, task, 0.5)


def test_the_slimming_loss_adds_the_norm_of_the_scales(task) -> None:
    net = network()
    x, y = next(task.train.batches(16))
    expected = task.loss(net(x), y, 0.1) + 0.01 * (
        net.norm1.weight.abs().sum() + net.norm2.weight.abs().sum()
    )
    torch.testing.assert_close(slimming_loss(0.01, 0.1, task)(net, x, y), expected)


def test_weights_go_by_one_threshold_over_all_convolutions(task) -> None:
    net = network()
    with torch.no_grad():
        net.conv1.weight.mul_(10)
    thin = by_weights(net, task, 0.7)
    every = torch.cat([net.conv1.weight.abs().flatten(), net.conv2.weight.abs().flatten()])
    gone = int(0.7 * every.numel())
    threshold = every.sort().values[gone - 1]
    for name in ("conv1", "conv2"):
        wide, narrow = net.get_submodule(name), thin.get_submodule(name)
        assert torch.equal(effective(narrow), wide.weight * (wide.weight.abs() > threshold))
    assert set(masks_of(thin)) == {"conv1", "conv2"}
    assert sum(int((m == 0).sum()) for m in masks_of(thin).values()) == gone
    assert not parametrize.is_parametrized(net.conv1)
    linear = by_weights(nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 2)), task, 0.5)
    assert set(masks_of(linear)) == {"1"}
    with pytest.raises(NotApplicable, match="masks"):
        by_weights(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), task, 0.5)


def test_masked_weights_cost_no_multiply_accumulates(task) -> None:
    net = network()
    thin = by_weights(net, task, 0.5)
    left = {name: int(mask.sum()) for name, mask in masks_of(thin).items()}
    assert macs_of(net, task) == cost(net, task.example()).macs
    assert macs_of(thin, task) == left["conv1"] * 64 + left["conv2"] * 16 + 12 * 2


def test_new_weights_inherit_the_mask_and_nothing_else(task) -> None:
    net = network()
    thin = by_weights(net, task, 0.75)
    fresh, other = renewed(thin, 3), renewed(thin, 4)
    for name, mask in masks_of(thin).items():
        assert torch.equal(masks_of(fresh)[name], mask)
        weight = effective(fresh.get_submodule(name))
        assert torch.equal(weight == 0, mask == 0)
        assert not torch.equal(weight, effective(other.get_submodule(name)))
        bound = net.get_submodule(name).weight[0].numel() ** -0.5 * mask.mean().rsqrt()
        assert 0.9 * bound < weight.abs().max() <= bound * (1 + 1e-6)
    assert (fresh.norm1.weight == 1).all()
    small = by_filters(net, task, 0.5)
    assert renewed(small, 0).conv1.weight.shape == small.conv1.weight.shape
    assert not torch.isclose(renewed(small, 0).conv1.weight, small.conv1.weight).any()


class Recorded:
    """Every training of one seed, without its steps: (network as it began, epochs, rate, loss)."""

    def __init__(self, referee, initial, large, task, seed=5) -> None:
        self.trained = []

        def train(bench, network, epochs, rate=1.0, **how):
            state = {k: v.clone() for k, v in network.state_dict().items()}
            self.trained.append((state, epochs, rate, how))
            return 0.0

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(module._Bench, "train", train)
            self.rows = referee.one_seed(initial, large, task, seed)

    def of(self, arm, case):
        return next(row for row in self.rows if (row["arm"], row["case"]) == (arm, case))


@pytest.fixture(scope="module")
def recorded(task):
    initial, large = network(), renewed(network(), 9)
    referee = Referee(ratios=(0.5, 0.75), recipe=Fit(epochs=8), rates=(1.0, 0.1), lottery=(1.0, 0.1))
    return Recorded(referee, initial, large, task), initial, large


def test_every_case_has_its_arms_in_order(recorded) -> None:
    rows = recorded[0].rows
    cases = [f"{p} {r}" for p in ("filters", "slimming", "weights") for r in ("0.5", "0.75")]
    arms = ("fine-tuned", "retrained", "scratch-E", "scratch-B")
    assert [(r["arm"], r["case"]) for r in rows if r["case"] in cases] == [
        (a, c) for c in cases for a in arms
    ]
    assert [r["arm"] for r in rows if not r["case"]] == ["large", "large, slimming"]
    assert [(r["arm"], r["case"]) for r in rows[-4:]] == [
        (arm, f"weights 0.75, rate x {f}") for f in ("1", "0.1") for arm in ("lottery", "new weights")
    ]


def test_epochs_and_charges(recorded) -> None:
    found = recorded[0]
    assert found.of("fine-tuned", "filters 0.5")["epochs"] == 2
    for case in ("filters 0.75", "slimming 0.75", "weights 0.75"):
        share = found.of("scratch-E", case)["macs"]
        assert 0.15 < share < 0.35
        longer = found.of("scratch-B", case)
        assert longer["epochs"] == 8 / share // 1
        found_shape = 0.0 if case.startswith("filters") else 1.0
        assert found.of("scratch-E", case)["spent"] == pytest.approx(found_shape + share)
        assert longer["spent"] == pytest.approx(found_shape + longer["epochs"] / 8 * share)
        assert found.of("fine-tuned", case)["spent"] == pytest.approx(1 + 2 * 0.25 * share)
        assert found.of("retrained", case)["spent"] == pytest.approx(1 + share)
    lottery = found.of("lottery", "weights 0.75, rate x 0.1")
    assert lottery["spent"] == pytest.approx(1 + lottery["macs"])
    assert (lottery["epochs"], found.of("large", "")["spent"]) == (8, 1.0)


def test_what_each_arm_begins_with(recorded) -> None:
    found, initial, large = recorded
    trained = found.trained
    # filters 0.5: two rates of fine-tuning and the retraining begin with the same inherited weights
    tuned, again, retrained, scratch_e, scratch_b = trained[:5]
    stretched = found.of("scratch-B", "filters 0.5")["epochs"]
    assert stretched >= 16
    assert [t[1:3] for t in trained[:5]] == [(2, 1.0), (2, 0.1), (8, 1.0), (8, 1.0), (stretched, 1.0)]
    rows = large.conv1.weight.abs().sum((1, 2, 3)).topk(len(tuned[0]["conv1.weight"])).indices.sort().values
    for state, *_ in (tuned, again, retrained):
        assert torch.equal(state["conv1.weight"], large.conv1.weight[rows])
    begins = [scratch_e[0]["conv1.weight"], scratch_b[0]["conv1.weight"], initial.conv1.weight[rows]]
    for a, b in pairwise(begins):
        assert not torch.isclose(a, b).any()
    # the large network of slimming begins where the plain one did, and its loss has the penalty
    slim = next(t for t in trained if "loss" in t[3])
    assert torch.equal(slim[0]["conv1.weight"], initial.conv1.weight)
    # the lottery: original weights under the mask of the trained network; at the lower rate it is trained anew
    ticket, fresh, cooler, cold_ticket, cold_fresh = trained[-5:]
    key = "conv1.parametrizations.weight.original"
    assert torch.equal(ticket[0][key], initial.conv1.weight)
    mask = masks_of(by_weights(large, None, 0.75))["conv1"]
    assert torch.equal(ticket[0]["conv1.parametrizations.weight.0.mask"], mask)
    assert torch.equal(cooler[0]["conv1.weight"], initial.conv1.weight)
    assert torch.equal(cold_ticket[0][key], initial.conv1.weight)
    assert not torch.equal(fresh[0][key], initial.conv1.weight)
    assert [t[2] for t in (ticket, fresh, cooler, cold_ticket, cold_fresh)] == [1.0, 1.0, 0.1, 0.1, 0.1]


def test_the_rate_is_the_one_that_is_best_on_validation_data(task) -> None:
    """Rates far too small and far too large learn nothing; the one between is taken."""
    referee = Referee(
        pruners=("filters",), ratios=(0.5,), rates=(1e-6, 1.0, 1e-5), tuning=1.0,
        recipe=Fit(epochs=4, lr=1e-2, batch_size=24),
    )  # fmt: skip
    initial = network()
    rows = referee.one_seed(initial, renewed(initial, 2), task, 0)
    tuned = next(row for row in rows if row["arm"] == "fine-tuned")
    assert tuned["rate"] == 1.0
    assert tuned["val"] > 0.9


def test_a_stretched_recipe_keeps_its_shape(task) -> None:
    bench = module._Bench(Referee(recipe=Fit(epochs=8, warmup=2.0, lr=0.4)), task, 3, network())
    used = []

    def recipe(fit, *_, **__):
        used.append(fit)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Fit, "__call__", recipe)
        bench.train(network(), 16, 0.1)
    assert (used[0].epochs, used[0].warmup, used[0].seed) == (16, 4.0, 3)
    assert used[0].lr == pytest.approx(0.04)


def test_the_finding_has_means_deviations_and_a_picture(task) -> None:
    referee = Referee(
        pruners=("filters", "weights"), ratios=(0.5,), rates=(1.0,), lottery=(), seeds=(0, 1),
        recipe=Fit(epochs=1, lr=1e-2, batch_size=24),
    )  # fmt: skip
    found = referee(network(), task)
    rows = found.to_json()["data"]["rows"]
    assert {row["seed"] for row in rows} == {0, 1}
    two = [row["test"] for row in rows if (row["arm"], row["case"]) == ("scratch-B", "filters 0.5")]
    shown = next(r for r in found.table() if (r["arm"], r["case"]) == ("scratch-B", "filters 0.5"))
    assert shown["mean"] == pytest.approx(sum(two) / 2)
    assert shown["deviation"] == pytest.approx(abs(two[0] - two[1]) / 2**0.5)
    gain = found.figures["scratch-B, filters 0.5"] - found.figures["fine-tuned, filters 0.5"]
    assert found.figures["scratch-B less fine-tuned, filters 0.5"] == pytest.approx(gain)
    assert f"as good as fine-tuned in {int(gain >= -0.003)} of 1" in found.sentence
    assert {trace.name for trace in found.plot().data} == {
        "fine-tuned",
        "retrained",
        "scratch-E",
        "scratch-B",
    }
    assert all(row["seconds"] > 0 for row in rows if row["case"])
    large = [row for row in rows if row["arm"] == "large"]
    assert large[0]["test"] > 0.8
    assert large[0]["spent"] == 1


def test_one_seed_has_no_deviation() -> None:
    row = {"arm": "a", "case": "", "test": 0.5, "epochs": 1, "macs": 1, "spent": 1, "seconds": 1}
    assert summed([row])[0]["deviation"] == 0


def test_time_ends_it_after_a_seed(task) -> None:
    referee = Referee(pruners=("filters",), ratios=(0.5,), rates=(1.0,), recipe=Fit(epochs=0.2))
    with within(0.01):
        found = referee(network(), task)
    assert found.table()[0]["seeds"] == 1


def test_bad_use(task) -> None:
    for wrong in (
        Referee(pruners=("filter",)),  # type: ignore[arg-type]
        Referee(ratios=(0.5, 1.0)),
        Referee(ratios=()),
        Referee(rates=()),
        Referee(seeds=()),
    ):
        with pytest.raises(BadInput):
            wrong(network(), task)
    with pytest.raises(NotApplicable, match="removed"):
        Referee()(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), task)
