"""The control that every change deserves: the given network, trained on for as long as the candidates were.

It changes neither size nor speed, so it is never chosen; it tells how much of a gain training alone brings.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from netwright.app import words
from netwright.core.budget import Budget
from netwright.core.errors import NotApplicable
from netwright.core.fit import Fit
from netwright.core.measure.paired import Change
from netwright.core.network import clone
from netwright.core.study.study import Trial
from netwright.core.task import Task

Row = dict[str, Any]
CONTROL = "trained-on"  # the slug of its row
WHY = "the control: what training alone brings, at the given size and speed"
LEFT_OUT = "the control (the given network, trained on for the same time) was left out: the budget is too small for it"
EPOCHS, PASSES = 5.0, 40.0  # without a limit in seconds; at most, within one


def control_trial(budget: Budget, seed: int) -> Trial:
    return Trial(CONTROL, {}, seed, budget, "the given network, trained on")


def trained_on(network: nn.Module, task: Task, budget: Budget, seed: int) -> nn.Module:
    """A copy of the network after further training as the methods do theirs (AdamW at 1e-3, cosine)."""
    network = clone(network)
    if not any(p.requires_grad for p in network.parameters()):
        raise NotApplicable("nothing in this network can be trained")
    epochs = EPOCHS if budget.seconds is None else PASSES
    Fit(epochs=epochs, lr=1e-3, seed=seed)(network, task, budget)
    return network


def remark(control: Row | None, winner: Row, metric: str) -> str:
    """Where training alone brought more on validation data than the winner has, for certain (the lower end of its
    interval lies above the winner's change), that it did; else nothing."""
    figure = f"{metric}_change"
    if control is None or control["status"] != "done" or figure not in control or figure not in winner:
        return ""
    if not control[f"{figure}_low"] > max(0.0, winner[figure]):
        return ""
    alone, with_ = (
        f"{words.moved(metric, row[figure])} {words.interval(metric, Change(*_ends(row, figure), 0))}"
        for row in (control, winner)
    )
    return (
        f"the given network itself, trained on for the same time, moves by {alone} on validation data, the chosen one "
        f"by {with_}: at the given size and speed, training alone does better"
    )


def _ends(row: Row, figure: str) -> tuple[float, float, float]:
    return row[figure], row[f"{figure}_low"], row[f"{figure}_high"]
