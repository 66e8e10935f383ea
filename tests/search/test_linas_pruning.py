import pytest
import torch
from torch import nn

from netwright.core.budget import Budget, Target
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.measure.cost import cost
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.task import Task
from netwright.core.weights.recalibrate import recalibrate
from netwright.models import build
from netwright.search import linas_pruning
from netwright.search.linas_pruning import LinasPruning, asked, choose, wanted
from netwright.search.linas_pruning.pruning_space import PruningSpace


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4, (700,), generator=generator)
    x = 0.6 * torch.randn(700, 1, 8, 8, generator=generator)
    for k in range(4):  # a bright quarter tells the class
        row, column = divmod(k, 2)
        x[y == k, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1.0
    return Task.from_arrays(x, y, name="quarters")


@pytest.fixture(scope="module")
def network(task):
    with seeded(0):
        net = build("cnn", (1, 8, 8), 4, widths=(16, 24, 32))
    Fit(epochs=5, lr=5e-3)(net, task)
    return net


@pytest.fixture(scope="module")
def space(network, task):
    return PruningSpace(network, task, costs=("macs", "bytes"))


def test_genes_are_the_distinct_counts_of_every_group(space):
    assert space.genes == {"conv1": 2, "conv2": 3, "conv3": 4}  # multiples of 8 up to 16, 24 and 32
    kept = space.keep({"conv1": 0, "conv2": 1, "conv3": 3})
    assert {name: len(units) for name, units in kept.items()} == {"conv1": 8, "conv2": 16, "conv3": 32}
    assert space.uniform(0.5) == (0, 1, 1)


def test_the_whole_network_is_measured_as_itself(space, network, task):
    whole = {name: n - 1 for name, n in space.genes.items()}
    found = space.measure(whole, task)
    assert found["macs"] == found["bytes"] == 1.0
    again = evaluate(space.build(whole), task, "val")["accuracy"]
    assert found["error"] == pytest.approx(1 - again)
    assert found["error"] == pytest.approx(1 - evaluate(network, task, "val")["accuracy"], abs=0.05)


def test_costs_are_those_of_the_network_that_is_built(space, network, task):
    choice = {"conv1": 0, "conv2": 0, "conv3": 1}
    small = space.build(choice)
    assert [small.get_submodule(f"conv{i}").out_channels for i in (1, 2, 3)] == [8, 8, 16]
    found, example = space.measure(choice, task), task.example(1)
    assert found["macs"] == pytest.approx(cost(small, example).macs / cost(network, example).macs)
    assert found["bytes"] == pytest.approx(cost(small, example).bytes / cost(network, example).bytes)
    assert network.conv1.out_channels == 16


def test_more_important_units_stay(space, task):
    """Keeping the top half loses less than keeping the bottom half."""
    choice = dict(zip(space.genes, space.uniform(0.5), strict=True))
    top = space.measure(choice, task)["error"]
    ranked = space._ranked
    space._ranked = {name: order.flip(0) for name, order in ranked.items()}
    bottom = space.measure(choice, task)["error"]
    space._ranked = ranked
    assert top < bottom


def test_latency_is_a_fraction_of_the_original(network, task):
    wide = PruningSpace(network, task)
    assert wide.costs == ("latency",)
    assert 0.3 < wide.cost(network, "latency") < 3.0


def test_transform_meets_the_target_and_leaves_the_input_alone(network, task):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    method = LinasPruning(population=8, measurements=20, evaluations=160, epochs=3)
    small = method(network, task, Budget(target=Target(smaller=3.0)))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    example = task.example(1)
    assert cost(small, example).bytes <= cost(network, example).bytes / 3
    assert evaluate(small, task, "test")["accuracy"] > evaluate(network, task, "test")["accuracy"] - 0.1
    again = method(network, task, Budget(target=Target(smaller=3.0)))
    for a, b in zip(small.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_least_error_within_the_limits_is_chosen(network, task):
    meter = Budget().start()
    method = LinasPruning(population=8, measurements=16, evaluations=80)
    _, archive = method.explore(network, task, Budget(target=Target(smaller=2.0)), meter)
    limits = wanted(Target(smaller=2.0), ("bytes",))
    assert limits == {"bytes": 0.5}
    fits = [m for m in archive.log if m.objectives["bytes"] <= 0.5]
    assert choose(archive, limits).objectives["error"] == min(m.objectives["error"] for m in fits)
    nearest = choose(archive, {"bytes": 1e-6})
    assert nearest.objectives["bytes"] == min(m.objectives["bytes"] for m in archive.log)


@pytest.mark.parametrize(
    ("target", "costs"),
    [
        (Target(), ("latency",)),
        (Target(faster=2), ("latency",)),
        (Target(smaller=4), ("bytes",)),
        (Target(faster=2, smaller=4), ("latency", "bytes")),
    ],
)
def test_objectives_follow_the_target(target, costs):
    assert asked(target) == costs
    assert set(wanted(target, costs)) == set(costs)
    assert all(0 < most < 1 for most in wanted(target, costs).values())


def test_a_short_budget_still_gives_a_network(network, task):
    small = LinasPruning()(network, task, Budget(seconds=1.0, target=Target(faster=2)))
    assert cost(small, task.example(1)).macs < cost(network, task.example(1)).macs


def test_measurements_are_as_many_as_examples_and_epochs_allow(space, task):
    method, n = LinasPruning(measurements=50), len(task.train)
    each = space.samples + space.recalibrated
    count = lambda **limits: method._affordable(Budget(**limits), space, n)
    assert count() == 50
    assert count(samples=space.scored + 7 * each) == 7
    assert count(epochs=(space.scored + 5 * space.recalibrated) / n + 1e-6) == 5
    assert count(samples=10**9, epochs=10.0**9) == 50
    assert count(samples=0) == 1


def test_the_likeliest_uniform_shares_are_measured_first(network, task, monkeypatch):
    begun, original = [], linas_pruning.LINAS.__call__

    def spy(self, *args):
        begun.append(self)
        return original(self, *args)

    monkeypatch.setattr(linas_pruning.LINAS, "__call__", spy)
    method = LinasPruning(population=4, measurements=4, evaluations=16, seed=3)
    space, archive = method.explore(network, task, Budget(target=Target(smaller=4.0)), Budget().start())
    (searcher,) = begun
    assert (searcher.population, searcher.measurements, searcher.evaluations, searcher.seed) == (4, 4, 16, 3)
    share = wanted(Target(smaller=4.0), ("bytes",))["bytes"]
    fitting = max(ratio for ratio in space.ratios if ratio**2 <= share)
    assert searcher.start[0] == space.uniform(fitting)
    assert tuple(archive.log[0].choice) == searcher.start[0]


def test_what_is_chosen_is_fine_tuned_as_asked_while_there_is_time(network, task, monkeypatch):
    fits, original = [], Fit.__call__
    monkeypatch.setattr(
        Fit, "__call__", lambda self, *a, **k: (fits.append(self), original(self, *a, **k))[1]
    )
    method = LinasPruning(4, 4, 16, epochs=0.5, lr=3e-3, batch_size=50, seed=2)
    method(network, task, Budget(target=Target(smaller=2.0)))
    assert [(f.epochs, f.lr, f.batch_size, f.seed) for f in fits] == [(0.5, 3e-3, 50, 2)]
    LinasPruning(4, 4, 16, epochs=0)(network, task, Budget(target=Target(smaller=2.0)))
    LinasPruning(4, 4, 16, epochs=2)(network, task, Budget(samples=0, target=Target(smaller=2.0)))
    assert len(fits) == 1


def test_small_groups_keep_any_count_and_judges_are_drawn_by_the_seed(task):
    with seeded(0):
        narrow = build("cnn", (1, 8, 8), 4, widths=(6, 24))
    spaces = [PruningSpace(narrow, task, ratios=(0.5, 1.0), samples=20, seed=seed) for seed in (0, 1)]
    assert spaces[0]._counts == {"conv1": [3, 6], "conv2": [16, 24]}
    first, second = (torch.cat([x for x, _ in space._val.batches(50)]) for space in spaces)
    assert not torch.equal(first, second)


def test_refusals(task):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4]

    with pytest.raises(NotApplicable, match="no unit"):
        PruningSpace(Fixed(), task)
    with pytest.raises(BadInput, match="ratios"):
        PruningSpace(build("cnn", (1, 8, 8), 4, widths=(8,)), task, ratios=(0.5, 0.25))
    with pytest.raises(BadInput, match="share"):
        LinasPruning(search=1.0)(build("cnn", (1, 8, 8), 4, widths=(8,)), task, Budget())


def test_recalibration_measures_the_statistics_of_the_data(task):
    with seeded(0):
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
    net[1].running_mean.fill_(9.0)
    weights = net[0].weight.clone()
    assert recalibrate(net, task.train, samples=10_000) == len(task.train)
    with torch.no_grad():
        made = torch.cat([net[0](x) for x, _ in task.train.batches(128)])
    assert torch.allclose(net[1].running_mean, made.mean((0, 2, 3)), atol=0.02)
    assert torch.allclose(net[1].running_var, made.var((0, 2, 3)), rtol=0.05)
    assert net[1].momentum == 0.1
    assert torch.equal(net[0].weight, weights)
    assert recalibrate(nn.Linear(2, 2), task.train) == 0
