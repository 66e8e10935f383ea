"""What only rewrites weights, on top of what changed the structure."""

import pytest
import torch
from torch import nn

from netwright.app.candidates import combined
from netwright.app.candidates.run import ON, run_trial
from netwright.core.budget import Budget, Target
from netwright.core.study.study import Trial
from netwright.core.task import Task

ORIGINAL = {"key": "original", "slug": "original", "bytes": 1000, "accuracy": 0.98, "faster": 1.0}
TARGET = Target(faster=4.0, max_drop=0.01)


def row(slug, faster, accuracy=0.975, size=500, **more):
    return {
        "slug": slug, "status": "done", "settings": {}, "faster": faster, "accuracy": accuracy, "bytes": size,
        "key": f"{slug} {faster}", "label": slug, **more,
    }  # fmt: skip


INT8 = row("static-int8", 2.5, 0.978, 260)


def combinations(*rows, target=TARGET):
    return combined.combinations(rows, ORIGINAL, target, "accuracy", 0)


def test_the_fastest_that_does_not_train_follows_the_nearest_that_did():
    slower = row("dynamic-int8", 1.2, 0.979, 250)
    near, far, bad = row("taylor-pruning", 1.8), row("magnitude-pruning", 1.2), row("rethink", 1.8, 0.90)
    trials = combinations(slower, INT8, bad, far, near)
    assert [t.settings[ON] for t in trials] == [near["key"], bad["key"], far["key"]]
    assert {t.slug for t in trials} == {"static-int8"}
    assert trials[0].label == "taylor-pruning, then static-int8"
    smaller = combinations(slower, INT8, near, target=Target(smaller=3.0, max_drop=0.01))
    assert smaller[0].slug == "dynamic-int8"


def test_one_that_loses_too_much_follows_only_where_there_is_no_other():
    lossy = row("static-int8", 2.5, 0.90)
    other = row("dynamic-int8", 1.2, 0.979)
    base = row("taylor-pruning", 1.8)
    assert combinations(lossy, other, base)[0].slug == "dynamic-int8"
    assert combinations(lossy, base)[0].slug == "static-int8"


@pytest.mark.parametrize(
    "base",
    [
        row("prune-then-int8", 3.0),  # ends in integers already
        row("trained-on", 1.0),
        row("dynamic-int8", 1.2),
        row("taylor-pruning", 1.8, status="failed"),
        row("taylor-pruning", float("nan")),
        row("static-int8", 3.0, settings={ON: "another"}),
    ],
    ids=lambda r: r["slug"],
)
def test_what_is_not_combined(base):
    assert combinations(INT8, base) == []


def test_without_a_gain_nothing_follows():
    assert combinations(row("static-int8", 1.01), row("taylor-pruning", 1.8)) == []
    assert combinations(row("taylor-pruning", 1.8)) == []


def test_at_most_three_and_the_same_trials_again():
    rows = [INT8, *(row("taylor-pruning", 1.1 + i / 10) for i in range(5))]
    trials = combinations(*rows)
    assert len(trials) == combined.MOST == len({t.key for t in trials})
    assert [t.key for t in trials] == [t.key for t in combinations(*rows)]


def test_the_trial_starts_from_the_network_of_the_other():
    x = torch.randn(60, 6)
    task = Task.from_arrays(x, (x[:, 0] > 0).long())
    given = nn.Linear(6, 2)
    other = nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2))
    trial = Trial("dynamic-int8", {ON: "other"}, 0, Budget())
    found = combined.run_on(trial, {"other": other, "given": given}, task)
    alone = run_trial(Trial("dynamic-int8", {}, 0, Budget()), other, task)
    assert found.figures["parameters"] == alone.figures["parameters"]
    assert torch.equal(found.network(x), alone.network(x))


def test_what_a_row_started_as():
    first = row("taylor-pruning", 1.8)
    second = row("static-int8", 4.5, settings={ON: first["key"]})
    assert combined.started_as(second, [first, second]) is first
    assert combined.started_as(first, [first, second]) is first
