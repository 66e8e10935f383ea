"""Maximum pooling: a linear relaxation over each window.

With m the input of the largest lower bound: max >= x_m. If no other upper bound exceeds that lower bound,
max = x_m. Else the upper plane is the one that is lower in the middle of the box: the constant largest upper bound
or lower_m + sum over inputs that can exceed it of relu's chord of (x_i - lower_m).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.verify.parts.bounds.interval import Interval
from netwright.verify.parts.bounds.program import Step


@dataclass(frozen=True)
class Windows:
    """The windows of one pooling step: (..., C, H, W) <-> (n C, K, L), K inputs in each of L windows."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, step: Step) -> Windows:
        pair = lambda v: (int(v[0]), int(v[-1]))
        given = list(step.args[1:])
        kernel = pair(given[0])
        stride = pair(given[1]) if len(given) > 1 and given[1] else kernel
        padding = pair(given[2]) if len(given) > 2 else (0, 0)
        dilation = pair(given[3]) if len(given) > 3 else (1, 1)
        size = (step.sources[0].shape[-2], step.sources[0].shape[-1])
        out = step.shape[-2:]
        # rounding up (ceil_mode) lets the last window hang over; the padding behind follows from the result
        after = tuple(
            max(0, (out[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - size[i] - padding[i])
            for i in range(2)
        )
        return cls(kernel, stride, dilation, padding, (after[0], after[1]), size)

    def unfold(self, x: Tensor, fill: float) -> Tensor:
        """(..., C, H, W) -> (n C, K, L)."""
        flat = x.reshape(-1, 1, *self.size)
        pads = (self.before[1], self.after[1], self.before[0], self.after[0])
        return F.unfold(F.pad(flat, pads, value=fill), self.kernel, self.dilation, 0, self.stride)

    def fold(self, windows: Tensor) -> Tensor:
        """(n, K, L) -> (n, H, W), each input the sum of its places."""
        padded = tuple(self.size[i] + self.before[i] + self.after[i] for i in range(2))
        whole = F.fold(windows, padded, self.kernel, self.dilation, 0, self.stride)[:, 0]
        rows, columns = self.before
        return whole[:, rows : rows + self.size[0], columns : columns + self.size[1]]


@dataclass(frozen=True)
class Planes:
    """Per window: which input bounds it from below (n C, K, L); slopes and intercept of the upper plane."""

    winner: Tensor
    slopes: Tensor
    intercept: Tensor
    candidates: Tensor


def planes(windows: Windows, x: Interval) -> Planes:
    low, high = windows.unfold(x.lower, -math.inf), windows.unfold(x.upper, -math.inf)
    best, index = low.max(1, keepdim=True)
    winner = torch.zeros_like(low).scatter_(1, index, 1.0)
    # the winner's own chord is the identity: its lower bound is `best`
    rivals = (high > best) & (winner == 0)
    width = torch.where(rivals, high - low, torch.ones_like(low))
    chord = torch.where(rivals, (high - best) / width, torch.zeros_like(low)) + winner
    finite = torch.where(chord > 0, low, torch.zeros_like(low))
    top = high.max(1, keepdim=True).values
    own = (high * winner.clamp(0, 1)).nan_to_num(0.0).sum(1, keepdim=True)
    reach = torch.where(rivals, high - best, torch.zeros_like(low)).sum(1, keepdim=True) + own - best
    chords = reach / 2 < top - best
    decided = ~rivals.any(1, keepdim=True)
    use = chords | decided
    slopes = torch.where(use, chord, torch.zeros_like(chord))
    intercept = torch.where(use, best - (chord * finite).sum(1, keepdim=True), top)
    intercept = torch.where(decided, torch.zeros_like(intercept), intercept)
    candidates = (rivals | (winner > 0)) & ~decided
    return Planes(winner, slopes, intercept[:, 0], candidates)


def undecided(step: Step, x: Interval) -> Tensor:
    """Which inputs could be the maximum of a window that has more than one such, (B, *shape)."""
    windows = Windows.of(step)
    mask = planes(windows, x).candidates.to(x.lower.dtype)
    return windows.fold(mask).reshape(x.lower.shape) > 0


def backward(step: Step, rows: Tensor, x: Interval) -> tuple[list[Tensor], Tensor]:
    """Coefficients (B, R, *shape) of the result -> of the input, and what the planes add (B, R)."""
    windows = Windows.of(step)
    plane = planes(windows, x)
    batch, count = rows.shape[:2]
    maps = plane.winner.shape[0] // batch
    places = plane.winner.shape[2]
    flat = rows.reshape(batch, count, maps, 1, places)
    per = lambda t: t.reshape(batch, 1, maps, -1, places)
    spread = flat.clamp(min=0) * per(plane.winner) + flat.clamp(max=0) * per(plane.slopes)
    back = windows.fold(spread.reshape(batch * count * maps, -1, places))
    added = (flat.clamp(max=0) * per(plane.intercept)).flatten(2).sum(2)
    return [back.reshape(batch, count, *step.sources[0].shape)], added
