"""The last step of `improve` before the test data: the winner's probabilities made honest."""

from __future__ import annotations

from torch import nn

from netwright.core import catalogue
from netwright.core.budget import Budget
from netwright.core.errors import NotApplicable
from netwright.core.task import Task


def calibrated(network: nn.Module, task: Task) -> tuple[nn.Module, str]:
    """One temperature, fitted on validation data; classifiers only. Also what was done, in words."""
    try:
        method = catalogue.method("temperature-scaling").build()
        network = method(network, task, Budget())
        temperature = float(next(p for n, p in network.state_dict().items() if n.endswith("temperature")))
        return network, f"temperature {temperature:.2f}"
    except NotApplicable as reason:
        return network, f"not calibrated: {reason}"
