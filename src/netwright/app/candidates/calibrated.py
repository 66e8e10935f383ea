"""The last step of `improve` before the test data: the winner's probabilities made honest, where that helps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.calibrate.parts.fitting import follow, refuse_separable, validation_logits
from netwright.calibrate.temperature_scaling import Temperature, fit
from netwright.core.errors import NotApplicable
from netwright.core.task import Task


def calibrated(network: nn.Module, task: Task) -> tuple[nn.Module, str]:
    """One temperature, fitted on validation data; classifiers only. Also what was done and why, in words that start
    with 'temperature 1.31' or 'not calibrated'.

    It is kept only if temperatures fitted on one half of the validation rows lower the negative log likelihood of
    the other half, both ways taken together; the one that is kept is fitted on all of them.
    """
    try:
        logits, targets = validation_logits(network, task)
        refuse_separable(logits, targets)
    except NotApplicable as reason:
        return network, f"not calibrated: {reason}"
    logits = logits.double()
    without, with_ = F.cross_entropy(logits, targets).item(), crossed(logits, targets)
    temperature = fit(logits, targets)
    rows = "on validation rows that it was not fitted on"
    compared = f"negative log likelihood {with_:.4f} with one, {without:.4f} without"
    if not with_ < without:
        return network, f"not calibrated: a temperature ({temperature:.2f}) is no better {rows} ({compared})"
    return (
        follow(network, Temperature(temperature), task),
        f"temperature {temperature:.2f}: better {rows} ({compared})",
    )


def crossed(logits: Tensor, targets: Tensor) -> float:
    """The mean negative log likelihood of logits (N, C), each half divided by the temperature of the other half."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    if not len(halves[0]):
        return math.inf
    total = 0.0
    for learn, judge in (halves, halves[::-1]):
        scaled = logits[judge] / fit(logits[learn], targets[learn])
        total += F.cross_entropy(scaled, targets[judge], reduction="sum").item()
    return total / len(targets)
