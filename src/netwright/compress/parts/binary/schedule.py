"""Operators whose rules change as the training goes on."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from netwright.core.budget import Meter
from netwright.core.fit import Fit, State
from netwright.core.task import Task


def advance(network: nn.Module, done: float) -> None:
    """Move the operators' schedules to where the fraction `done` of the training is over."""
    for module in network.modules():
        if hasattr(module, "advance"):
            module.advance(done)


def schedule(fit: Fit, task: Task, meter: Meter) -> Callable[[State], None]:
    """Moves the operators on as the training goes, by steps or, where they will run out first, by seconds."""
    epochs = min(fit.epochs, meter.left().epochs or math.inf)
    steps = max(1, math.ceil(epochs * math.ceil(len(task.train) / fit.batch_size)))
    began = meter.elapsed

    def on_step(state: State) -> None:
        by_seconds = (meter.elapsed - began) / max(meter.seconds - began, 1e-9)
        advance(state.network, min(1.0, max(state.step / steps, by_seconds)))

    return on_step
