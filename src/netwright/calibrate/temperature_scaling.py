"""Temperature scaling: one number that divides the logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from netwright.calibrate.parts.fitting import follow, refuse_separable, validation_logits
from netwright.core.budget import Budget
from netwright.core.task import Task

HOTTEST = 1000.0


class Temperature(nn.Module):
    """logits (B, C) -> logits / T."""

    temperature: Tensor

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

    def forward(self, logits: Tensor) -> Tensor:
        return logits / self.temperature


@dataclass(frozen=True)
class TemperatureScaling:
    """Divide the logits by the temperature that minimises the validation negative log likelihood.

    On Calibration of Modern Neural Networks (Guo et al., ICML 2017, arXiv 1706.04599). The predicted class
    never changes. The paper descends by gradient; the likelihood has one optimum in T, so we bracket it and use
    Brent's method. T ends at 1000 (uniform probabilities) for a network that is no better than chance.
    Raises NotApplicable for tasks that are not classification and where no validation example is wrong.
    """

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        logits, targets = validation_logits(network, task, budget)
        refuse_separable(logits, targets)
        return follow(network, Temperature(fit(logits.double(), targets)), task)


def fit(logits: Tensor, targets: Tensor) -> float:
    """The temperature with the least negative log likelihood, for logits (N, C) and classes (N,)."""

    def cost(log_temperature: float) -> float:
        return F.cross_entropy(logits / math.exp(log_temperature), targets).item()

    # logits may be of any size (a network trained with a margin loss, say), so the bracket scales with them
    size = math.log(max(1e-6, logits.std(1).mean().item()))
    low, high = min(size, 0.0) - math.log(100.0), max(size, 0.0) + math.log(HOTTEST)
    found = minimize_scalar(cost, bounds=(low, high), method="bounded")
    return math.exp(found.x)
