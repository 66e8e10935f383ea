"""Deep training: the slope's way to 1, the fused result, its size, and what is refused."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from netwright.compress.vanillanet import Vanilla, deep_training
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import parameter_count, seeded
from netwright.core.task import Task
from netwright.models import build
from netwright.models.vanillanet import Slope

PLAIN = {nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Dropout}


def task(count=96, shape=(1, 8, 8)) -> Task:
    draw = torch.Generator().manual_seed(0)
    prototypes = torch.randn(3, *shape, generator=draw)

    def part():
        y = torch.arange(count) % 3
        return prototypes[y] + 0.5 * torch.randn(count, *shape, generator=draw), y

    (x, y), val, test = part(), part(), part()
    return Task.from_arrays(x, y, val=val, test=test, name="prototypes")


def slopes_while_training(budget: Budget, over: float, fit: Fit) -> tuple[list[float], nn.Module]:
    with seeded(0):
        network = build("vanillanet", (1, 8, 8), 3, dims=(4, 4, 4, 4))
    slope = next(m for m in network.modules() if isinstance(m, Slope))
    seen: list[float] = []
    network.register_forward_pre_hook(lambda *_: seen.append(slope.slope.item()))
    deep_training(network, task(), fit, budget.start(), over)
    assert {m.slope.item() for m in network.modules() if isinstance(m, Slope)} == {1.0}
    return seen, network


def test_the_slope_rises_linearly_and_stays_at_one():
    fit = Fit(epochs=4, batch_size=32, lr=1e-3)  # 12 steps
    seen, network = slopes_while_training(Budget(), 0.5, fit)
    # and once more, for the batch statistics
    assert seen == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, *[1] * 7])
    assert network.fuse()(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    again, _ = slopes_while_training(Budget(epochs=2), 1.0, fit)
    assert again == pytest.approx([i / 6 for i in range(7)])


@pytest.mark.parametrize("budget", [Budget(samples=128), Budget(seconds=0.0)])
def test_what_the_budget_cuts_short_still_ends_at_one(budget):
    seen, _ = slopes_while_training(budget, 0.5, Fit(epochs=50, batch_size=32, lr=1e-3))
    expected = [0, 0.5, 1, 1, 1] if budget.samples else [1]
    assert seen == pytest.approx(expected)


def test_the_slope_follows_the_clock(monkeypatch):
    ticks = itertools.count()  # a clock that goes on by a second whenever it is read
    monkeypatch.setattr("netwright.core.budget.time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    seen, _ = slopes_while_training(Budget(seconds=80.0), 0.5, Fit(epochs=10_000, batch_size=32, lr=1e-3))
    assert seen[0] == 0
    assert seen[-1] == 1
    assert seen == sorted(seen)
    assert sum(0 < s < 1 for s in seen) > 3


def test_what_comes_out_is_shallow_plain_and_good():
    given = build("mlp", (1, 8, 8), 3)
    fit = Fit(epochs=10, batch_size=32, lr=2e-2)
    made = Vanilla(size=6_000, fit=fit)(given, task(), Budget())
    assert {type(m) for m in made.modules() if not list(m.children())} <= PLAIN
    assert parameter_count(made) == pytest.approx(6_000, rel=0.15)
    assert evaluate(made, task(), "test")["accuracy"] > 0.8
    assert not made.training


def test_sizes_and_settings():
    given, data = build("mlp", (1, 8, 8), 3), task()
    deep = Vanilla(size=8_000, series=0).new_network(given, data)
    plain = Vanilla(size=8_000, series=0, deep=False).new_network(given, data)
    assert deep.dims == plain.dims
    assert not any(isinstance(m, Slope) for m in plain.modules())
    assert parameter_count(plain.fuse()) == pytest.approx(8_000, rel=0.1)
    quarter = Vanilla(deep=False).new_network(given, data)
    assert parameter_count(quarter) == pytest.approx(parameter_count(given) / 4, rel=0.1)
    wide = build("mlp", (1, 8, 8), 5)  # more outputs than the data's classes
    assert Vanilla().new_network(wide, data)(torch.randn(2, 1, 8, 8)).shape == (2, 5)


def test_the_given_network_can_teach():
    """By soft targets alone it learns a teacher's classes, which are not those of the data."""
    data = task()

    class Teacher(nn.Module):
        def forward(self, x):
            own = x.flatten(1) @ data.train.inputs[0].flatten(1)[:3].T
            return own[:, [1, 2, 0]]

    fit = Fit(epochs=10, batch_size=32, lr=2e-2)
    made = Vanilla(size=6_000, alpha=1.0, fit=fit)(Teacher(), data, Budget())
    x, y = data.test.inputs[0], data.test.targets
    assert (made(x).argmax(1) == (y - 1) % 3).double().mean() > 0.8


def test_what_it_refuses():
    given, data = build("mlp", (1, 8, 8), 3), task()
    rows = Task.from_arrays(torch.randn(40, 5), torch.arange(40) % 2)
    with pytest.raises(NotApplicable, match="takes images"):
        Vanilla().new_network(nn.Linear(5, 2), rows)
    with pytest.raises(BadInput, match="not possible here"):
        Vanilla(size=3).new_network(given, data)
    with pytest.raises(NotApplicable, match="a quarter of this network"):
        Vanilla().new_network(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(1, 3)), data)
    for over in (0.0, 1.5):
        with pytest.raises(BadInput, match="share of the training"):
            deep_training(build("vanillanet", (1, 8, 8), 3), data, Fit(), Budget().start(), over)
