"""Two networks of the same architecture: what lies on the line between them, and how alike their outputs are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netwright.core.metrics import outputs_of
from netwright.core.network import clone
from netwright.core.split import Split, take
from netwright.core.task import Task
from netwright.core.weights.recalibrate import recalibrate


@dataclass(frozen=True)
class Connectivity:
    """lmc: mean error of the two ends less the error where on the line it is farthest from that mean: negative for a
    barrier, positive for a valley. errors: along the line, ends included."""

    lmc: float
    errors: tuple[float, ...]


def connectivity(one: nn.Module, two: nn.Module, task: Task, points: int, examples: int) -> Connectivity:
    """On validation data, at `points` places from one to the other; batch statistics measured anew at each, on
    `examples` of the training split, since those of the ends belong to other weights."""
    errors = []
    for place in range(points):
        between = interpolated(one, two, place / (points - 1))
        recalibrate(between, task.train, samples=examples)
        errors.append(error_of(between, task))
    middle = (errors[0] + errors[-1]) / 2
    farthest = max(errors, key=lambda error: abs(middle - error))
    return Connectivity(middle - farthest, tuple(errors))


def interpolated(one: nn.Module, two: nn.Module, t: float) -> nn.Module:
    """A copy with the weights (1 - t) one + t two. Buffers are those of the first."""
    between, other = clone(one), dict(two.named_parameters())
    with torch.no_grad():
        for name, weight in between.named_parameters():
            weight.lerp_(other[name].to(weight), t)
    return between


def error_of(network: nn.Module, task: Task, split: str = "val") -> float:
    """Share of wrong classes; of another kind of task its loss."""
    outputs, targets = outputs_of(network, getattr(task, split))
    if task.kind == "classification" and outputs.dim() == 2:
        return float((outputs.argmax(1) != targets).double().mean())
    return float(task.loss(outputs, targets))


def output_similarity(one: nn.Module, two: nn.Module, split: Split, examples: int) -> float:
    """Linear CKA of the outputs on the first `examples` of a split (arXiv 1905.00414)."""
    some = take(split, min(examples, len(split)))
    x, y = (outputs_of(network, some)[0].flatten(1).double() for network in (one, two))
    return linear_cka(x, y)


def linear_cka(x: Tensor, y: Tensor) -> float:
    """|Y^T X|^2 / (|X^T X| |Y^T Y|) of centred (N, P) and (N, Q); 0 where one of them never changes."""
    x, y = x - x.mean(0), y - y.mean(0)
    size = (x.T @ x).norm() * (y.T @ y).norm()
    return float((y.T @ x).norm() ** 2 / size) if size > 0 else 0.0
