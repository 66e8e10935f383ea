"""Vector scaling: a factor and an offset per class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.calibrate.parts.fitting import follow, minimise, refuse_separable, validation_logits
from netwright.core.budget import Budget, Meter
from netwright.core.task import Task


class Vector(nn.Module):
    """logits (B, C) -> logits * weight + bias, weight and bias (C,)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.weight + self.bias


@dataclass(frozen=True)
class VectorScaling:
    """Scale and shift each logit so that the validation negative log likelihood is least (LBFGS).

    On Calibration of Modern Neural Networks (Guo et al., ICML 2017, arXiv 1706.04599). The predicted class may
    change. A budget that ends early leaves the best reached so far, the identity at worst.
    Raises NotApplicable for tasks that are not classification and where no validation example is wrong.
    """

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        logits, targets = validation_logits(network, task, budget)
        refuse_separable(logits, targets)
        return follow(network, Vector(*fit(logits.double(), targets, budget.start())), task)


def fit(logits: Tensor, targets: Tensor, meter: Meter) -> tuple[Tensor, Tensor]:
    """weight (C,) and bias (C,) for logits (N, C) float64 and classes (N,)."""
    weight = torch.ones(logits.shape[1], dtype=logits.dtype)
    bias = torch.zeros_like(weight)
    minimise(
        (weight, bias), lambda: F.cross_entropy(logits * weight + bias, targets), meter, "vector scaling"
    )
    return weight, bias  # the gradients of all offsets add up to 0, and so do the offsets
