"""Two methods on one network: what only rewrites its weights, after what changed its structure and trained it.

Both were tried alone. The second takes moments, so that its gain on top of the first is measured, not guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from netwright.app.candidates.choose import shortfalls
from netwright.app.candidates.control import CONTROL
from netwright.app.candidates.run import ON, ORIGINAL, run_trial
from netwright.core import catalogue
from netwright.core.budget import Budget, Target
from netwright.core.study.study import Outcome, Trial
from netwright.core.task import Task

Row = dict[str, Any]
MOST = 3  # networks of a round that the second method is tried on
SHARE = 0.1  # of the time that is left for trials
_LEAST = math.log(1.05)  # what the second method must gain by itself to be worth it


def combinations(rows: Sequence[Row], original: Row, target: Target, metric: str, seed: int) -> list[Trial]:
    """The method without training that gains most of what was asked for, on the networks of those that trained and
    should come nearest with it: at most MOST, and none that ends in such a method already (`at_zero`)."""
    alone = [r for r in rows if _measured(r, metric) and ON not in r["settings"]]
    second = max(
        (r for r in alone if not catalogue.method(r["slug"]).trains),
        key=lambda r: (not _dropped(r, original, target, metric), _gain(r, original, target)),
        default=None,
    )
    if second is None or _gain(second, original, target) < _LEAST:
        return []
    able = [r for r in alone if (method := catalogue.method(r["slug"])).trains and not method.at_zero]
    lacking = lambda r: sum(
        shortfalls(_expected(r, second, original, metric), original, target, metric).values()
    )
    able.sort(key=lambda r: (lacking(r), -r[metric]))
    settings, then = second["settings"], f", then {second['label']}"
    return [
        Trial(second["slug"], {**settings, ON: r["key"]}, seed, Budget(target=target), r["label"] + then)
        for r in able[:MOST]
    ]


def run_on(trial: Trial, networks: Mapping[str, nn.Module], task: Task, device: str = "cpu") -> Outcome:
    """A trial on the network that another one left. networks: by the keys of those trials."""
    return run_trial(trial, networks[trial.settings[ON]], task, device)


def started_as(row: Row, rows: Sequence[Row]) -> Row:
    """The row whose network this one's method was given; the row itself where that was the user's."""
    return next((r for r in rows if r["key"] == row["settings"].get(ON)), row)


def _measured(row: Row, metric: str) -> bool:
    return (
        row["status"] == "done"
        and row["slug"] not in (ORIGINAL, CONTROL)
        and all(math.isfinite(row.get(name, math.nan)) for name in (metric, "faster", "bytes"))
    )


def _gain(row: Row, original: Row, target: Target) -> float:
    """Logarithm of the factor in what was asked for; the sum where both were."""
    speed = 0.0 if target.faster is None else math.log(row["faster"])
    return speed + (0.0 if target.smaller is None else math.log(original["bytes"] / row["bytes"]))


def _dropped(row: Row, original: Row, target: Target, metric: str) -> bool:
    return target.max_drop is not None and original[metric] - row[metric] > target.max_drop


def _expected(row: Row, second: Row, original: Row, metric: str) -> Row:
    """What both together should measure, if neither minds the other."""
    return {
        "faster": row["faster"] * second["faster"], "bytes": row["bytes"] * second["bytes"] / original["bytes"],
        metric: row[metric] - max(0.0, original[metric] - second[metric]),
    }  # fmt: skip
