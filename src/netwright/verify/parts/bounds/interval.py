"""Intervals, and the rules by which they pass through one step."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from netwright.verify.parts.bounds.program import Step


class Interval(NamedTuple):
    """lower <= x <= upper, each (B, *shape of one example)."""

    lower: Tensor
    upper: Tensor

    @property
    def centre(self) -> Tensor:
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        return (self.upper - self.lower) / 2

    def meet(self, other: Interval) -> Interval:
        """Both at once. Each side alone is sound; where rounding has crossed them the interval is a point."""
        lower = torch.maximum(self.lower, other.lower)
        return Interval(lower, torch.maximum(lower, torch.minimum(self.upper, other.upper)))


def rounding(x: Tensor) -> float:
    """By how much of its magnitude a sum is widened: 16 units in the last place.

    The error of a sum of n products in floating point is a few units in the last place of the sum of their
    magnitudes (at most n of them, about the root of n in practice). Bounds are widened by 16, which held the
    sampled outputs in every test; it is not directed rounding, so nothing is proved about the last digits.
    """
    return 16 * torch.finfo(x.dtype).eps


def monotone(step: Step, *inputs: Interval) -> Interval:
    """For a step that never falls when an input rises."""
    run = torch.func.vmap(step)
    return Interval(run(*(i.lower for i in inputs)), run(*(i.upper for i in inputs)))


def averaged(step: Step, x: Interval) -> Interval:
    """For a sum or mean of inputs: monotone, and widened by its rounding."""
    low, high = monotone(step, x)
    slack = rounding(low) * torch.func.vmap(step)(torch.maximum(x.lower.abs(), x.upper.abs()))
    return Interval(low - slack, high + slack)


def corners(step: Step, *inputs: Interval) -> Interval:
    """For a step that is affine in each input, element by element: the extremes lie at the corners."""
    run = torch.func.vmap(step)
    values = [run(*corner) for corner in product(*inputs)]
    lower, upper = values[0], values[0]
    for value in values[1:]:
        lower, upper = torch.minimum(lower, value), torch.maximum(upper, value)
    slack = rounding(lower) * torch.maximum(lower.abs(), upper.abs())
    return Interval(lower - slack, upper + slack)


def weighted(step: Step, x: Interval, weight: int, bias: int | None) -> Interval:
    """For a product with fixed weights: the centre through the step, the radius through their magnitudes.

    weight, bias: positions of these arguments.
    """
    slack = rounding(x.lower)
    centre = torch.func.vmap(step)(x.centre)
    factors = {name: abs(value) for name, value in step.kwargs.items()}  # addmm's alpha and beta

    def magnitudes(radius: Tensor) -> Tensor:
        args = step.arguments(radius)
        args[weight] = args[weight].abs()
        if bias is not None and len(args) > bias and args[bias] is not None:
            args[bias] = args[bias].abs() * slack
        return step.apply(args, factors)

    radius = torch.func.vmap(magnitudes)(x.radius + slack * (x.centre.abs() + x.radius))
    return Interval(centre - radius, centre + radius)
