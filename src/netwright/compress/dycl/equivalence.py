"""Does the compiled network decide as the network itself does? On inputs that it was not compiled with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from netwright.core.budget import in_time
from netwright.core.network import Inputs, as_tuple, call, evaluating

_EPSILON = 1e-10


@dataclass(frozen=True)
class Equivalence:
    """delta: log(largest absolute difference + 1e-10), natural; outputs of other shapes differ infinitely.

    eta: share of inputs with another final decision: the largest entry of each row of scores, a whole number, or a
    shape. scale: of the largest output, to see delta by.
    """

    delta: float
    eta: float
    scale: float
    examples: int

    @property
    def relative(self) -> float:
        """The largest difference over the largest output."""
        return max(0.0, math.exp(self.delta) - _EPSILON) / max(self.scale, 1e-6)

    def __str__(self) -> str:
        wrong = round(self.eta * self.examples)
        return f"{wrong} of {self.examples} decisions differ; log of the largest difference {self.delta:.1f}"


def equivalence(network: nn.Module, compiled: nn.Module, inputs: Iterable[Inputs]) -> Equivalence:
    """Run both on each of the inputs, one at a time, the first at least and others while there is time."""
    largest, scale, wrong, count = 0.0, 0.0, 0, 0
    with evaluating(network), evaluating(compiled), torch.no_grad():
        for given in in_time(inputs):
            expected = call(network, tuple(t.clone() for t in as_tuple(given)))
            difference, size, same = compared(expected, call(compiled, given))
            largest, scale = max(largest, difference), max(scale, size)
            wrong += not same
            count += 1
    return Equivalence(math.log(largest + _EPSILON), wrong / max(count, 1), scale, count)


def compared(expected: Any, got: Any) -> tuple[float, float, bool]:
    """Largest difference, largest expected entry, and whether the decisions are the same."""
    a, b = tree_leaves(expected), tree_leaves(got)
    if len(a) != len(b):
        return math.inf, 0.0, False
    difference, scale, same = 0.0, 0.0, True
    for left, right in zip(a, b, strict=True):
        if not isinstance(left, Tensor):
            number = isinstance(left, (int, float)) and isinstance(right, (int, float))
            left, right = (torch.as_tensor(t) for t in (left, right)) if number else (left, right)
        if not isinstance(left, Tensor) or not isinstance(right, Tensor):
            same = same and left == right
            continue
        if left.shape != right.shape or left.dtype != right.dtype:
            return math.inf, scale, False
        if left.numel():
            gap = (left.double() - right.double()).abs().nan_to_num(nan=0.0).max().item()
            same = same and bool((left.isnan() == right.isnan()).all())
            difference, scale = (
                max(difference, gap),
                max(scale, left.double().abs().nan_to_num().max().item()),
            )
        same = same and torch.equal(_decided(left), _decided(right))
    return difference, scale, same


def _decided(outputs: Tensor) -> Tensor:
    """Scores decide by the largest of each row; whole numbers are decisions themselves; a single float is none."""
    if not outputs.is_floating_point():
        return outputs
    return outputs.argmax(-1) if outputs.dim() and outputs.shape[-1] > 1 else torch.zeros(())
