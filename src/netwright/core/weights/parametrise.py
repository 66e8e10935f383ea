"""Weights that are computed from other tensors while they are learned: quantised, masked, of low rank.

Each is a parametrisation for `torch.nn.utils.parametrize.register_parametrization(layer, "weight", ...)`;
`bake` turns the result into plain tensors.

A quantiser is a grid (grids.py: which values there are), a range (ranges.py: which part of the number line it covers)
and a gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from netwright.core.errors import BadInput
from netwright.core.network import clone
from netwright.core.weights.grids import Grid, Integers, Uniform
from netwright.core.weights.ranges import Range, minmax

Gradient = Literal["straight", "clipped", "pact", "lsq"]


class Quantiser(nn.Module):
    """Round a tensor to a grid, in float.

    channel: the dimension whose slices have a scale each; None for one scale for the whole tensor. group: so many
    values in a row within a channel have a scale of their own; the last group of a channel may be shorter.

    gradient: 'straight' passes it unchanged (arXiv 1308.3432); 'clipped' stops it where a value lies beyond the grid's
    ends. Two learn the range, from the one that `range` finds in the first tensor, and need a uniform grid: 'pact' the
    upper end (arXiv 1805.06085; what lies beyond the ends moves them), 'lsq' the scale (arXiv 1902.08153; the rounding
    of every value moves it, its gradient divided by the root of the row's size times the highest code).
    """

    learned: nn.Parameter
    zero: Tensor

    def __init__(
        self,
        grid: Grid | None = None,
        range: Range = minmax,
        gradient: Gradient = "straight",
        channel: int | None = 0,
        group: int | None = None,
    ) -> None:
        super().__init__()
        self.grid: Grid = grid or Uniform()
        self.range, self.gradient, self.channel, self.group = range, gradient, channel, group
        if gradient in ("pact", "lsq") and not isinstance(self.grid, Uniform):
            raise BadInput(f"the gradient '{gradient}' learns the range of a uniform grid; use straight")
        if group is not None and (group < 1 or channel is None):
            raise BadInput("groups have at least one value each and lie within channels")

    def start(self, x: Tensor) -> None:
        """Begin learning from the range that the tensor has: what registering it for a weight does by itself."""
        assert isinstance(self.grid, Uniform)
        with torch.no_grad():
            twin = self.grid.quantise(self.rows(x), self.range)
        end = twin.scale if self.gradient == "lsq" else (self.grid.highest - twin.zero) * twin.scale
        self.learned = nn.Parameter(end)
        self.register_buffer("zero", twin.zero)

    def to_integer(self, x: Tensor) -> Integers:
        """The integer twin, (C, n): C = 1 without channels, a row per group with groups."""
        with torch.no_grad():
            rows = self.rows(x)
            if "learned" not in self._parameters:
                return self.grid.quantise(rows, self.range)
            assert isinstance(self.grid, Uniform)
            scale = self._scale().detach()
            return Integers(self.grid.codes(rows, scale, self.zero), scale, self.zero)

    def forward(self, x: Tensor) -> Tensor:
        """x (...), rounded to the grid; the same shape and type, and exactly the values of the integer twin."""
        if "learned" in self._parameters:
            return self.unrows(self._learning(self.rows(x)), x).to(x.dtype)
        values = self.to_integer(x).values()
        rounded = self.unrows(values, x).to(x.dtype)
        if self.gradient == "clipped":
            low = self.unrows(values.amin(1, keepdim=True).expand_as(values), x)
            high = self.unrows(values.amax(1, keepdim=True).expand_as(values), x)
            x = x.clamp(low, high)
        return straight(x, rounded)

    def _scale(self) -> Tensor:
        """The learned scale (C, 1), rounded as it is stored, with a straight gradient."""
        assert isinstance(self.grid, Uniform)
        scale = self.learned if self.gradient == "lsq" else self.learned / (self.grid.highest - self.zero)
        return straight(scale, self.grid.stored(scale.detach()))

    def _learning(self, rows: Tensor) -> Tensor:
        assert isinstance(self.grid, Uniform)
        scale = self._scale()
        low, high = ((end - self.zero).to(rows.dtype) for end in (self.grid.lowest, self.grid.highest))
        if self.gradient == "pact":
            steps = torch.clamp(rows, low * scale, high * scale) / scale.detach()
            scale = scale.detach()
        else:
            share = (rows.shape[1] * self.grid.highest) ** -0.5
            scale = straight(scale * share, scale.detach())
            steps = torch.clamp(rows / scale, low, high)
        return straight(steps, steps.detach().round()) * scale

    def right_inverse(self, x: Tensor) -> Tensor:
        if self.gradient in ("pact", "lsq"):
            self.start(x)
        return x

    def rows(self, x: Tensor) -> Tensor:
        """The tensor (...) as rows (C, n) that have a scale each; zeros fill the last group of a channel."""
        if self.channel is None:
            return x.reshape(1, -1)
        rows = x.movedim(self.channel, 0).flatten(1)
        size = rows.shape[1] if self.group is None else min(self.group, rows.shape[1])
        return F.pad(rows, (0, -rows.shape[1] % size)).reshape(-1, size)

    def unrows(self, rows: Tensor, like: Tensor) -> Tensor:
        """Rows as a tensor of this shape again."""
        if self.channel is None:
            return rows.reshape(like.shape)
        moved = like.movedim(self.channel, 0)
        rows = rows.reshape(len(moved), -1)[:, : moved[0].numel()]
        return rows.reshape(moved.shape).movedim(0, self.channel)


def straight(x: Tensor, rounded: Tensor) -> Tensor:
    """The rounded values to the bit, with the gradient of x."""
    return rounded.detach() + (x - x.detach())


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


class LowRankChange(nn.Module):
    """A tensor (m, ...), itself left as it is, plus scale * (m, r) (r, n): low-rank adaptation (arXiv 2106.09685).
    Nothing is added at the start. Train this module's parameters alone.
    """

    def __init__(self, rank: int, shape: torch.Size, scale: float = 2.0) -> None:
        super().__init__()
        rows, columns = shape[0], shape[1:].numel()
        self.left = nn.Parameter(torch.zeros(rows, rank))
        self.right = nn.Parameter(torch.empty(rank, columns))
        nn.init.kaiming_uniform_(self.right, a=5**0.5)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * (self.left @ self.right).reshape(x.shape)

    def right_inverse(self, x: Tensor) -> Tensor:
        return x


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
