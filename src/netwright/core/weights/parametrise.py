"""Weights that are computed from other tensors while they are learned: quantised, masked, of low rank.

Each is a parametrisation for `torch.nn.utils.parametrize.register_parametrization(layer, "weight", ...)`;
`bake` turns the result into plain tensors.

A quantiser is a grid (which values there are), a range (which part of the number line it covers) and a gradient.
Its grids work on rows (C, n), one row per channel, or a single row for the whole tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from netwright.core.errors import BadInput
from netwright.core.network import clone


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


Error = Callable[[Tensor, Tensor], Tensor]
Range = Callable[[Tensor, Error], tuple[Tensor, Tensor]]
"""(rows (C, n), error of a range (low, high) -> (C,)) -> low (C,), high (C,)."""


def minmax(rows: Tensor, error: Error) -> tuple[Tensor, Tensor]:
    """All of the values."""
    return rows.amin(1), rows.amax(1)


@dataclass(frozen=True)
class Percentile:
    """Leave out the outermost values: `keep` percent lie inside, the same share cut on either side."""

    keep: float = 99.99

    def __call__(self, rows: Tensor, error: Error) -> tuple[Tensor, Tensor]:
        n = rows.shape[1]
        cut = int((100 - self.keep) / 200 * n)
        return rows.kthvalue(1 + cut, dim=1).values, rows.kthvalue(n - cut, dim=1).values


@dataclass(frozen=True)
class LeastSquares:
    """The range, among `steps` shrunken copies of the whole one, whose rounding has the least squared error."""

    steps: int = 80
    smallest: float = 0.2

    def __call__(self, rows: Tensor, error: Error) -> tuple[Tensor, Tensor]:
        low, high = minmax(rows, error)
        factor = torch.ones_like(low)
        best = error(low, high)
        for f in torch.linspace(1, self.smallest, self.steps + 1)[1:].tolist():
            found = error(low * f, high * f)
            factor = torch.where(found < best, torch.full_like(factor, f), factor)
            best = torch.minimum(found, best)
        return low * factor, high * factor


class Grid(Protocol):
    """A set of values to round to."""

    def quantise(self, rows: Tensor, range: Range) -> Integers:
        """(C, n) floats to integers."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Evenly spaced values. Symmetric: codes -(2^(b-1)-1) to 2^(b-1)-1, zero at 0. Affine: codes 0 to 2^b - 1."""

    bits: int = 8
    symmetric: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise BadInput(f"a uniform grid has 2 to 16 bits, not {self.bits}; use Binary for one")

    @property
    def lowest(self) -> int:
        return 1 - 2 ** (self.bits - 1) if self.symmetric else 0

    @property
    def highest(self) -> int:
        return 2 ** (self.bits - 1) - 1 if self.symmetric else 2**self.bits - 1

    def place(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero (int32) that cover [low, high]. Zero itself always lies on the grid."""
        tiny = torch.finfo(low.dtype).tiny
        if self.symmetric:
            scale = torch.maximum(low.abs(), high.abs()) / self.highest
            return torch.where(scale > tiny, scale, 1.0), torch.zeros_like(low, dtype=torch.int32)
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = (high - low) / self.highest
        scale = torch.where(scale > tiny, scale, 1.0)
        return scale, (-low / scale).round().clamp(0, self.highest).to(torch.int32)

    def codes(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """clip(round(x / scale) + zero), round half to even; int32."""
        return ((x / scale).round() + zero).clamp(self.lowest, self.highest).to(torch.int32)

    def quantise(self, rows: Tensor, range: Range) -> Integers:
        def error(low: Tensor, high: Tensor) -> Tensor:
            return (self._round(rows, low, high).values() - rows).pow(2).sum(1)

        return self._round(rows, *range(rows, error))

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
        def error(low: Tensor, high: Tensor) -> Tensor:
            return (self._round(rows, low, high).values() - rows).pow(2).sum(1)

        return self._round(rows, *range(rows, error))

    def _round(self, rows: Tensor, low: Tensor, high: Tensor) -> Integers:
        top = torch.maximum(low.abs(), high.abs()).clamp_min(torch.finfo(rows.dtype).tiny)
        scale = torch.exp2(top.log2().round())[:, None]
        powers = torch.exp2(-torch.arange(2 ** (self.bits - 1) - 1, dtype=rows.dtype, device=rows.device))
        levels = torch.cat([-powers, torch.zeros(1).to(powers), powers.flip(0)])
        return _nearest(rows, levels.expand(len(rows), -1), scale)


@dataclass(frozen=True)
class Codebook:
    """2^b values of any size per row, placed by k-means (Lloyd's iterations from quantiles). No range."""

    bits: int = 4
    iterations: int = 20

    def quantise(self, rows: Tensor, range: Range) -> Integers:
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


class Quantiser(nn.Module):
    """Round a tensor to a grid, in float; the gradient goes straight through (arXiv 1308.3432).

    channel: the dimension whose slices have a scale each; None for one scale for the whole tensor.
    gradient: 'straight' passes it unchanged; 'clipped' stops it where a value lies beyond the grid's ends.
    """

    def __init__(
        self,
        grid: Grid | None = None,
        range: Range = minmax,
        gradient: Literal["straight", "clipped"] = "straight",
        channel: int | None = 0,
    ) -> None:
        super().__init__()
        self.grid: Grid = grid or Uniform()
        self.range, self.gradient, self.channel = range, gradient, channel

    def to_integer(self, x: Tensor) -> Integers:
        """The integer twin, (C, n): C = 1 without channels."""
        with torch.no_grad():
            return self.grid.quantise(self._rows(x), self.range)

    def forward(self, x: Tensor) -> Tensor:
        """x (...), rounded to the grid; the same shape and type."""
        values = self.to_integer(x).values()
        rounded = self._unrows(values, x).to(x.dtype)
        if self.gradient == "clipped":
            low = self._unrows(values.amin(1, keepdim=True).expand_as(values), x)
            high = self._unrows(values.amax(1, keepdim=True).expand_as(values), x)
            x = x.clamp(low, high)
        return x + (rounded - x).detach()

    def right_inverse(self, x: Tensor) -> Tensor:
        return x

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(1, -1) if self.channel is None else x.movedim(self.channel, 0).flatten(1)

    def _unrows(self, rows: Tensor, like: Tensor) -> Tensor:
        if self.channel is None:
            return rows.reshape(like.shape)
        return rows.reshape(like.movedim(self.channel, 0).shape).movedim(0, self.channel)


class Mask(nn.Module):
    """Keep only some entries: mask (...) of 0 and 1, the tensor's shape or one that broadcasts to it."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask

    def right_inverse(self, x: Tensor) -> Tensor:
        return x


class LowRank(nn.Module):
    """A product (m, r) (r, n) in place of a tensor (m, ...), flattened to (m, n); starts at the best one (SVD)."""

    def __init__(self, rank: int, shape: torch.Size) -> None:
        super().__init__()
        self.rank, self.shape = rank, shape

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (left @ right).reshape(self.shape)

    def right_inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u, s, v = torch.linalg.svd(x.flatten(1), full_matrices=False)
        root = s[: self.rank].sqrt()
        return (u[:, : self.rank] * root).contiguous(), (root[:, None] * v[: self.rank]).contiguous()


def bake(network: nn.Module) -> nn.Module:
    """A copy whose parametrised tensors are plain ones with their present values (weight norm too)."""
    network = clone(network)
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            # a copied module shares its made-up class with the original; taking it apart must not reach there
            kind = type(module)
            module.__class__ = type(kind.__name__, kind.__bases__, dict(kind.__dict__))
            for name in list(module.parametrizations):  # type: ignore[arg-type, union-attr]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return network
