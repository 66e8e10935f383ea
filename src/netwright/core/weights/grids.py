"""The values that a tensor may take, and the integers that stand for them.

Grids work on rows (C, n): one row per channel or group, or a single row for the whole tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from netwright.core.errors import BadInput
from netwright.core.weights.ranges import Range

_HALF = 65504.0  # the largest half-precision number


@dataclass(frozen=True)
class Integers:
    """The integer twin of a tensor, (C, n): value = scale * (code - zero), or scale * levels[code].

    codes: (C, n) integers. scale, zero: (C, 1). levels: (C, L) for grids that are not uniform.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    levels: Tensor | None = None

    def values(self) -> Tensor:
        if self.levels is None:
            return (self.codes - self.zero).to(self.scale.dtype) * self.scale
        return self.levels.gather(1, self.codes.long()) * self.scale


class Grid(Protocol):
    """A set of values to round to."""

    def quantise(self, rows: Tensor, range: Range) -> Integers:
        """(C, n) floats to integers."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Evenly spaced values. Symmetric: codes -(2^(b-1)-1) to 2^(b-1)-1, zero at 0. Affine: codes 0 to 2^b - 1.

    full: a symmetric grid has the code -2^(b-1) too, on the side of the larger end, where the scale's sign puts it: at
    2 bits four values in place of three. half: scales are half-precision numbers, as they are stored.
    """

    bits: int = 8
    symmetric: bool = True
    full: bool = False
    half: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise BadInput(f"a uniform grid has 2 to 16 bits, not {self.bits}; use Binary for one")

    @property
    def lowest(self) -> int:
        return (0 if self.full else 1) - 2 ** (self.bits - 1) if self.symmetric else 0

    @property
    def highest(self) -> int:
        return 2 ** (self.bits - 1) - 1 if self.symmetric else 2**self.bits - 1

    def place(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero (int32) that cover [low, high]. Zero itself always lies on the grid."""
        if self.symmetric:
            end = torch.where(high.abs() > low.abs(), high, low)
            scale = self.stored(end / self.lowest if self.full else end.abs() / self.highest)
            return scale, torch.zeros_like(low, dtype=torch.int32)
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = self.stored((high - low) / self.highest)
        return scale, (-low / scale).round().clamp(0, self.highest).to(torch.int32)

    def stored(self, scale: Tensor) -> Tensor:
        """The scale as it is kept; 1 in place of one that is next to nothing, whose values are all zero then."""
        if self.half:
            kept = scale.clamp(-_HALF, _HALF).half().to(scale.dtype)
            scale = torch.where(kept.abs() < 2.0**-24, scale.sign() * 2.0**-24, kept)
        return torch.where(scale.abs() > torch.finfo(scale.dtype).tiny, scale, 1.0)

    def codes(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """clip(round(x / scale) + zero), round half to even; int32."""
        return ((x / scale).round() + zero).clamp(self.lowest, self.highest).to(torch.int32)

    def quantise(self, rows: Tensor, range: Range) -> Integers:
        def rounding(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
            return self._round(values, low, high).values()

        return self._round(rows, *range(rows, rounding))

    def _round(self, rows: Tensor, low: Tensor, high: Tensor) -> Integers:
        scale, zero = (t[:, None] for t in self.place(low, high))
        return Integers(self.codes(rows, scale, zero), scale, zero)


def _nearest(rows: Tensor, levels: Tensor, scale: Tensor) -> Integers:
    """Index of the nearest of the ascending levels (C, L), times scale (C, 1)."""
    middle = (levels[:, 1:] + levels[:, :-1]) / 2
    codes = torch.searchsorted(middle.contiguous(), (rows / scale).contiguous())
    return Integers(codes.to(torch.int32), scale, torch.zeros_like(codes[:, :1]), levels)


@dataclass(frozen=True)
class PowerOfTwo:
    """0 and plus or minus 2^k: 2^b - 1 values, the largest being the power of two nearest the range's end.

    A product with such a weight is a shift.
    """

    bits: int = 4

    def quantise(self, rows: Tensor, range: Range) -> Integers:
        def rounding(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
            return self._round(values, low, high).values()

        return self._round(rows, *range(rows, rounding))

    def _round(self, rows: Tensor, low: Tensor, high: Tensor) -> Integers:
        top = torch.maximum(low.abs(), high.abs()).clamp_min(torch.finfo(rows.dtype).tiny)
        scale = torch.exp2(top.log2().round())[:, None]
        powers = torch.exp2(-torch.arange(2 ** (self.bits - 1) - 1, dtype=rows.dtype, device=rows.device))
        levels = torch.cat([-powers, torch.zeros(1).to(powers), powers.flip(0)])
        return _nearest(rows, levels.expand(len(rows), -1), scale)


@dataclass(frozen=True)
class Codebook:
    """2^b values of any size per row, placed by k-means (Lloyd's iterations from quantiles). No range.

    runs: so many rows in a row share their values each, half-precision numbers then.
    """

    bits: int = 4
    iterations: int = 20
    runs: tuple[int, ...] = ()

    def quantise(self, rows: Tensor, range: Range) -> Integers:
        if not self.runs:
            return self._by_row(rows)
        levels = [self._by_row(part.reshape(1, -1)).levels for part in rows.split(list(self.runs))]
        shared = torch.cat([torch.as_tensor(t).half() for t in levels]).to(rows.dtype)
        return self.nearest(rows, shared)

    def nearest(self, rows: Tensor, shared: Tensor) -> Integers:
        """Each row by the nearest of its run's values (runs, L), ascending."""
        counts = torch.tensor(self.runs, device=rows.device)
        return _nearest(rows, shared.repeat_interleave(counts, 0), torch.ones_like(rows[:, :1]))

    def _by_row(self, rows: Tensor) -> Integers:
        count, n = 2**self.bits, rows.shape[1]
        at = ((torch.arange(count, device=rows.device) + 0.5) / count * n).long().clamp(max=n - 1)
        levels = rows.sort(1).values[:, at]
        scale = torch.ones_like(rows[:, :1])
        for _ in torch.arange(self.iterations):
            codes = _nearest(rows, levels, scale).codes.long()
            total = torch.zeros_like(levels).scatter_add_(1, codes, rows)
            members = torch.zeros_like(levels).scatter_add_(1, codes, torch.ones_like(rows))
            levels = torch.where(members > 0, total / members.clamp_min(1), levels).sort(1).values
        return _nearest(rows, levels, scale)


@dataclass(frozen=True)
class Binary:
    """sign(x) times the mean of |x|, the best such pair in squared error (XNOR-Net, arXiv 1603.05279). No range."""

    def quantise(self, rows: Tensor, range: Range) -> Integers:
        levels = torch.tensor([-1.0, 1.0]).to(rows).expand(len(rows), -1)
        codes = (rows >= 0).to(torch.int32)
        return Integers(codes, rows.abs().mean(1, keepdim=True), torch.zeros_like(codes[:, :1]), levels)


@dataclass(frozen=True)
class Ternary:
    """-1, 0, 1 times the mean of the |x| that are above 0.7 of the mean |x| (TWN, arXiv 1605.04711). No range."""

    def quantise(self, rows: Tensor, range: Range) -> Integers:
        size = rows.abs()
        kept = size > 0.7 * size.mean(1, keepdim=True)
        scale = (size * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp_min(1)
        codes = torch.where(kept, rows.sign() + 1, 1).to(torch.int32)
        levels = torch.tensor([-1.0, 0.0, 1.0]).to(rows).expand(len(rows), -1)
        return Integers(codes, scale, torch.zeros_like(codes[:, :1]), levels)
