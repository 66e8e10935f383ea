"""Matrix scaling: a linear map of the logits, held near a diagonal one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.calibrate.parts.fitting import follow, minimise, refuse_separable, validation_logits
from netwright.core.budget import Budget, Meter
from netwright.core.task import Task


class Matrix(nn.Module):
    """logits (B, C) -> logits @ weight.T + bias, weight (C, C), bias (C,)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def forward(self, logits: Tensor) -> Tensor:
        return F.linear(logits, self.weight, self.bias)


@dataclass(frozen=True)
class MatrixScaling:
    """Map the logits linearly so that the validation negative log likelihood is least (LBFGS), with ODIR.

    Matrix scaling is from On Calibration of Modern Neural Networks (Guo et al., arXiv 1706.04599), where it
    overfits; the off-diagonal and intercept regularisation is from Beyond temperature scaling (Kull et al.,
    NeurIPS 2019, arXiv 1910.12656): strength * (mean of squared off-diagonal weights + mean of squared offsets).
    One strength serves both terms, chosen from `strengths` by cross-validation inside the validation split (the
    paper's grid has two axes). The predicted class may change.
    Raises NotApplicable for tasks that are not classification and where no validation example is wrong.
    """

    strengths: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    folds: int = 3
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        logits, targets = validation_logits(network, task, budget)
        refuse_separable(logits, targets)
        meter = budget.start()
        strength = self.choose(logits.double(), targets, meter)
        return follow(network, Matrix(*fit(logits.double(), targets, strength, meter)), task)

    def choose(self, logits: Tensor, targets: Tensor, meter: Meter) -> float:
        """The strength with the best held-out likelihood; the strongest when there is no time to compare."""
        if len(self.strengths) == 1:
            return self.strengths[0]
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(self.seed))
        parts = order.chunk(self.folds)
        scores: dict[float, float] = {}
        for strength in sorted(self.strengths, reverse=True):
            held_out = 0.0
            for i, test in enumerate(parts):
                train = torch.cat([part for j, part in enumerate(parts) if j != i])
                weight, bias = fit(logits[train], targets[train], strength, meter)
                held_out += F.cross_entropy(
                    F.linear(logits[test], weight, bias), targets[test], reduction="sum"
                ).item()
            if meter.exhausted:
                break
            scores[strength] = held_out
        return min(scores, key=lambda s: scores[s]) if scores else max(self.strengths)


def fit(logits: Tensor, targets: Tensor, strength: float, meter: Meter) -> tuple[Tensor, Tensor]:
    """weight (C, C) and bias (C,) for logits (N, C) float64 and classes (N,)."""
    classes = logits.shape[1]
    weight = torch.eye(classes, dtype=logits.dtype)
    bias = torch.zeros(classes, dtype=logits.dtype)
    off = 1 - torch.eye(classes, dtype=logits.dtype)

    def loss() -> Tensor:
        penalty = (weight * off).pow(2).sum() / (classes * (classes - 1)) + bias.pow(2).mean()
        return F.cross_entropy(F.linear(logits, weight, bias), targets) + strength * penalty

    minimise((weight, bias), loss, meter, "matrix scaling")
    return weight, bias
