"""Isotonic calibration: a monotone curve per class, by isotonic regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor, nn

from netwright.calibrate.parts.fitting import follow, validation_logits
from netwright.core.budget import Budget
from netwright.core.task import Task

# Isotonic regression says 0 wherever no validation example said otherwise; the log needs a number.
FLOOR = 1e-5
# How much of the network's own log-probability is added, only to order classes that the curves leave equal.
TIE = 1e-5


def log_odds(logits: Tensor) -> Tensor:
    """log p / (1 - p) of each class (B, C), exact where p is so near to 1 that 1 - p rounds to 0."""
    p = logits.softmax(1)
    top = torch.arange(p.shape[1], device=p.device) == p.argmax(1, keepdim=True)
    largest = p.amax(1, keepdim=True)
    without_top = torch.where(top, torch.zeros_like(p), p).sum(1, keepdim=True)
    others = torch.where(top, without_top, without_top + largest - p)
    return logits.log_softmax(1) - others.clamp_min(1e-30).log()


class Isotonic(nn.Module):
    """logits (B, C) -> log-probabilities (B, C) through a piecewise linear curve per class, then normalised.

    knots (log-odds) and values (log-probability): (C, K), a curve's points in increasing order; short curves
    repeat their last point.
    """

    knots: Tensor
    values: Tensor
    offset: Tensor

    def __init__(self, curves: list[tuple[np.ndarray, np.ndarray]]) -> None:
        super().__init__()
        longest = max(len(x) for x, _ in curves)
        table = [[np.pad(a, (0, longest - len(a)), mode="edge") for a in curve] for curve in curves]
        points = torch.from_numpy(np.array(table, dtype=np.float32))
        self.register_buffer("knots", points[:, 0].contiguous())
        self.register_buffer("values", points[:, 1].contiguous())
        self.register_buffer("offset", torch.arange(len(curves)) * longest)

    def forward(self, logits: Tensor) -> Tensor:
        x = log_odds(logits)
        last = self.knots.shape[1] - 1
        passed = (x.unsqueeze(2) >= self.knots).sum(2)
        left = (passed - 1).clamp(0, last) + self.offset
        right = passed.clamp(0, last) + self.offset
        x0, x1 = self.knots.flatten()[left], self.knots.flatten()[right]
        y0, y1 = self.values.flatten()[left], self.values.flatten()[right]
        # left of the first knot and right of the last both ends are one point: the fraction is then 0
        fraction = torch.where(x1 > x0, (x - x0) / torch.where(x1 > x0, x1 - x0, 1.0), 0.0)
        return (y0 + (y1 - y0) * fraction + TIE * logits.log_softmax(1)).log_softmax(1)


@dataclass(frozen=True)
class IsotonicCalibration:
    """Replace each class's probability by the share of that class among validation examples of like probability.

    Transforming Classifier Scores into Accurate Multiclass Probability Estimates (Zadrozny & Elkan, KDD 2002):
    isotonic regression of 'is class k' on the network's probability of k, one against the rest, then
    normalised to sum 1. The new network gives log-probabilities, whose softmax are the probabilities. The
    predicted class may change. On the validation examples this is scikit-learn's curve exactly; between two of
    them we interpolate log-probability over log-odds, not probability over probability: the steps of an
    overconfident network crowd so near to 0 and 1 that rounding would throw an input from one to the next.
    Where the curve says 0 ours says 1e-5; a class without a validation example keeps its probability.
    Raises NotApplicable for tasks that are not classification.
    """

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        logits, targets = validation_logits(network, task, budget)
        return follow(network, Isotonic(fit(logits, targets)), task)


def fit(logits: Tensor, targets: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per class the points (log-odds, log-probability) of its curve, for logits (N, C) and classes (N,)."""
    # in the logits' own precision, so that what is equal for the network is equal here
    x = log_odds(logits).numpy()
    curves = []
    for k in range(x.shape[1]):
        hits = (targets == k).numpy()
        if not hits.any():
            curves.append(_identity())
            continue
        regression = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        regression.fit(x[:, k], hits.astype(np.float32))
        curves.append((regression.X_thresholds_, np.log(np.maximum(regression.y_thresholds_, FLOOR))))
    return curves


def _identity() -> tuple[np.ndarray, np.ndarray]:
    """The curve that leaves a probability as it is, drawn from 1e-7 to 1 - 1e-7."""
    odds = np.linspace(-16, 16, 129)
    return odds, -np.log1p(np.exp(-odds))
