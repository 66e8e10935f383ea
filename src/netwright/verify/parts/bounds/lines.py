"""Two lines around an activation on an interval: the relaxations of CROWN (arXiv 1811.00866), element by element.

Every function takes the bounds l <= x <= u of its argument, any shape, and gives slopes and intercepts of the
same shape. An upper line of f is an upper line; a lower line is found as the mirror image of an upper line of
the mirrored function -f(-x).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from netwright.verify.parts.bounds.interval import Interval


class Line(NamedTuple):
    slope: Tensor
    intercept: Tensor


class Lines(NamedTuple):
    """lower.slope x + lower.intercept <= f(x) <= upper.slope x + upper.intercept on the interval."""

    lower: Line
    upper: Line


def mirrored(upper_of_mirror: Callable[[Interval], Line], x: Interval) -> Line:
    """The lower line of f from the upper line of -f(-x)."""
    slope, intercept = upper_of_mirror(Interval(-x.upper, -x.lower))
    return Line(slope, -intercept)


def leaky_relu(x: Interval, leak: float, slope: Tensor | None = None) -> Lines:
    """max(x, leak x) for 0 <= leak <= 1; relu is leak 0.

    Upper: the chord where the sign is open, else the function itself. Lower: through the origin with the slope
    that leaves the smaller area, leak or 1 (CROWN's adaptive choice); `slope`, of any shape that broadcasts,
    chooses between them instead (0: leak, 1: one) and may be trained, as α-CROWN does.
    """
    low, high = x
    width = (high - low).clamp_min(torch.finfo(low.dtype).tiny)
    open_ = (low < 0) & (high > 0)
    chord = torch.where(open_, (high - leak * low) / width, (low >= 0).to(low.dtype) * (1 - leak) + leak)
    lift = torch.where(open_, high * (1 - chord), torch.zeros_like(low))
    chosen = (high >= -low).to(low.dtype) if slope is None else slope.clamp(0, 1)
    below = torch.where(open_, leak + (1 - leak) * chosen, chord)
    return Lines(Line(below, torch.zeros_like(below)), Line(chord, lift))


def clamp(x: Interval, floor: float, ceiling: float) -> Lines:
    """min(max(x, floor), ceiling), either limit possibly infinite."""
    upper = _clamp_upper(x, floor, ceiling)
    return Lines(mirrored(lambda m: _clamp_upper(m, -ceiling, -floor), x), upper)


def _clamp_upper(x: Interval, floor: float, ceiling: float) -> Line:
    low, high = x
    top, bottom = high.clamp(floor, ceiling), low.clamp(floor, ceiling)
    inside = (low >= floor) & (high <= ceiling)
    # from (low, f(low)) to where the function stops rising: above it, as it is convex and then flat
    knee = high.clamp(max=ceiling)
    chord = (top - bottom) / (knee - low).clamp_min(torch.finfo(low.dtype).tiny)
    # from above the floor over the knee the function is concave there: y = x or y = ceiling, the smaller area
    concave = (low >= floor) & (high > ceiling)
    adaptive = ((ceiling - low) > (high - ceiling)).to(low.dtype)
    slope = torch.where(inside, torch.ones_like(low), torch.where(concave, adaptive, chord))
    slope = torch.where(top > bottom, slope, torch.zeros_like(low))
    at = torch.where(top > bottom, knee, torch.zeros_like(low))
    return Line(slope, top - slope * at)


def tanh(x: Interval) -> Lines:
    upper = lambda i: _s_upper(torch.tanh, lambda v: 1 - torch.tanh(v) ** 2, i)
    return Lines(mirrored(upper, x), upper(x))


def sigmoid(x: Interval) -> Lines:
    slope = lambda v: torch.sigmoid(v) * torch.sigmoid(-v)
    upper = _s_upper(torch.sigmoid, slope, x)
    return Lines(mirrored(lambda i: _s_upper(lambda v: -torch.sigmoid(-v), slope, i), x), upper)


def _s_upper(f: Callable[[Tensor], Tensor], slope_of: Callable[[Tensor], Tensor], x: Interval) -> Line:
    """Upper line of a rising function, convex below zero and concave above.

    Below: the chord. Above: the tangent in the middle. Across: the tangent that passes through (l, f(l)), or at
    u at the latest the chord; the tangent's point is bisected from the side on which the line is sound.
    """
    low, high = x
    wide = high - low > 1e-6 * (1 + high.abs() + low.abs())
    chord = torch.where(wide, (f(high) - f(low)) / (high - low).clamp_min(1e-12), torch.zeros_like(low))
    sound = lambda d: f(d) + slope_of(d) * (low - d) >= f(low)
    near, far = torch.zeros_like(low), high.clamp_min(0)
    for _ in range(40):
        middle = (near + far) / 2
        good = sound(middle)
        near, far = torch.where(good, near, middle), torch.where(good, middle, far)
    point = torch.where(low >= 0, (low + high) / 2, far)
    touching = (low >= 0) | ((high > 0) & sound(high.clamp_min(0)))
    slope = torch.where(touching & wide, slope_of(point), chord)
    at = torch.where(touching & wide, point, high)
    # the slack covers the rounding of f itself and of the line
    slack = 8 * torch.finfo(low.dtype).eps * (1 + slope * torch.maximum(low.abs(), high.abs()))
    return Line(slope, f(at) - slope * at + slack)
