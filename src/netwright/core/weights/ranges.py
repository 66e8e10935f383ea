"""Which part of the number line a grid covers.

A range is given rows (C, n) and a way to round values (C, m) to the grid that covers (low, high), and gives low and
high, both (C,). A grid's range is made smaller by taking fewer of the outermost values in, which are then cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Rounding = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(values (C, m), low (C,), high (C,)) -> the values, rounded (C, m)."""
Range = Callable[[Tensor, Rounding], tuple[Tensor, Tensor]]


def minmax(rows: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
    """All of the values."""
    return rows.amin(1), rows.amax(1)


@dataclass(frozen=True)
class Percentile:
    """Leave out the outermost values: `keep` percent lie inside, the same share cut on either side."""

    keep: float = 99.99

    def __call__(self, rows: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        n = rows.shape[1]
        cut = int((100 - self.keep) / 200 * n)
        return rows.kthvalue(1 + cut, dim=1).values, rows.kthvalue(n - cut, dim=1).values


@dataclass(frozen=True)
class LeastSquares:
    """The range, among `steps` shrunken copies of the whole one, whose rounding has the least squared error."""

    steps: int = 80
    smallest: float = 0.2

    def __call__(self, rows: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        def error(low: Tensor, high: Tensor) -> Tensor:
            return (rounding(rows, low, high) - rows).pow(2).sum(1)

        return _best(rows, error, self.steps, self.smallest)


@dataclass(frozen=True)
class Entropy:
    """The range, among `steps` shrunken copies of the whole one, that loses the least information.

    As TensorRT calibrates (8-bit Inference with TensorRT, GTC 2017): a histogram of `bins` over the whole range is
    cut to the smaller one, what lies outside counted in the last bins; beside it the same where each level's mass
    lies evenly on those of its bins that are not empty. The divergence of the second from the first is least.
    """

    bins: int = 512
    steps: int = 80
    smallest: float = 0.2

    def __call__(self, rows: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        low, high = minmax(rows, rounding)
        width = ((high - low) / self.bins).clamp_min(torch.finfo(rows.dtype).tiny)[:, None]
        at = ((rows - low[:, None]) / width).long().clamp(0, self.bins - 1)
        counts = torch.zeros(len(rows), self.bins).to(rows).scatter_add_(1, at, torch.ones_like(rows))
        centres = low[:, None] + (torch.arange(self.bins).to(rows) + 0.5) * width

        def divergence(below: Tensor, above: Tensor) -> Tensor:
            return _divergence(counts, centres, rounding(centres, below, above), below, above)

        return _best(rows, divergence, self.steps, self.smallest)


def _divergence(counts: Tensor, centres: Tensor, levels: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """KL (C,) of histograms (C, bins). levels: what the centres are rounded to, ascending."""
    inside = (centres >= low[:, None]) & (centres <= high[:, None])
    first, last = inside.long().argmax(1), inside.shape[1] - 1 - inside.flip(1).long().argmax(1)
    place = torch.arange(inside.shape[1], device=counts.device).expand_as(centres)
    place = torch.minimum(torch.maximum(place, first[:, None]), last[:, None])
    true = torch.zeros_like(counts).scatter_add_(1, place, counts)
    held = counts * inside
    level = torch.nn.functional.pad((levels.diff(dim=1) != 0).long(), (1, 0)).cumsum(1)
    mass = torch.zeros_like(counts).scatter_add_(1, level, held)
    filled = torch.zeros_like(counts).scatter_add_(1, level, (held > 0).to(counts))
    seen = torch.where(held > 0, (mass / filled.clamp_min(1)).gather(1, level), torch.zeros_like(counts))
    p, q = true / true.sum(1, keepdim=True), seen / seen.sum(1, keepdim=True).clamp_min(1e-30)
    # an end bin that holds only what was cut off has no counterpart: a small one, so that it costs much
    return torch.where(p > 0, p * (p / q.clamp_min(1e-9)).log(), torch.zeros_like(p)).sum(1)


def _best(
    rows: Tensor, error: Callable[[Tensor, Tensor], Tensor], steps: int, smallest: float
) -> tuple[Tensor, Tensor]:
    """The whole range, or one of its shrunken copies where that has less error (C,)."""
    low, high = rows.amin(1), rows.amax(1)
    factor = torch.ones_like(low)
    best = error(low, high)
    for f in torch.linspace(1, smallest, steps + 1)[1:].tolist():
        found = error(low * f, high * f)
        factor = torch.where(found < best, torch.full_like(factor, f), factor)
        best = torch.minimum(found, best)
    return low * factor, high * factor


RANGES: dict[str, Range] = {
    "minmax": minmax, "percentile": Percentile(99.99), "mse": LeastSquares(), "entropy": Entropy(),
}  # fmt: skip
