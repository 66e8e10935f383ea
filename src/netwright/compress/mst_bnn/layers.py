"""A layer of signs whose outputs are computed from one another along a tree."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from netwright.compress.mst_bnn.tree import Plan, Tree, plan
from netwright.core.errors import MissingExtra
from netwright.core.weights import xnor
from netwright.core.weights.binary import BinaryConv, BinaryLinear

_LARGEST = 2**15  # signs that a sum of 16 bits can hold
_PLACES = 256


class Reused(nn.Module):
    """A BinaryConv or BinaryLinear along a tree: the same sums, to the bit, by fewer operations.

    On the processor (numba, float32) the plan is followed; elsewhere, in files and for kernels of 2^15 signs and more,
    the layer computes as it did. The file holds the layer's bits and the parent of each output.
    """

    parent: Tensor
    order: Tensor

    def __init__(self, layer: BinaryConv | BinaryLinear, tree: Tree) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("parent", tree.parent.to(layer.codes.device))
        self.register_buffer("order", tree.order.to(layer.codes.device))
        self.depth = tree.depth

    def rows(self) -> Tensor:
        """The signs of each output (O, n)."""
        return self.layer.weight().flatten(1)

    def plan(self) -> Plan:
        """Made from the bits, and kept as long as they stay."""
        tree = Tree(self.parent.cpu(), self.order.cpu(), self.depth)
        return self.layer.kept("plan", lambda: plan(self.rows().cpu(), tree))

    def sums(self, x: Tensor) -> Tensor:
        """What the plan gives, as floats: (B, O, ...), or (..., O) of a linear layer."""
        found = self.plan()
        steps = [
            found.tree.order,
            found.tree.parent,
            found.positions,
            found.starts,
            found.middles,
            found.ends,
        ]
        if isinstance(self.layer, BinaryLinear):
            rows = self.layer.signs(x).reshape(-1, x.shape[-1])
            out = torch.ops.netwright.reused_linear(rows, *steps)
            return out.view(*x.shape[:-1], -1)
        signs, window = self.layer.signs(x), self.layer.window
        image = signs.unsqueeze(2) if x.dim() == 3 else signs
        out = torch.ops.netwright.reused_conv(image, *steps, [n for part in window for n in part])
        return out.squeeze(2) if x.dim() == 3 else out

    def forward(self, x: Tensor) -> Tensor:
        if not xnor.serves(x) or math.prod(self.layer.shape[1:]) >= _LARGEST:
            return self.layer(x)
        return self.layer.finished(self.sums(x))


_STEPS = "Tensor order, Tensor parent, Tensor positions, Tensor starts, Tensor middles, Tensor ends"
torch.library.define("netwright::reused_conv", f"(Tensor signs, {_STEPS}, int[] window) -> Tensor")
torch.library.define("netwright::reused_linear", f"(Tensor signs, {_STEPS}) -> Tensor")


@torch.library.impl("netwright::reused_conv", "CPU")
def _(signs: Tensor, *rest: Any) -> Tensor:
    """signs (B, C, H, W) -> sums (B, O, Ho, Wo)."""
    *steps, settings = rest
    window = _window(settings)
    patches = F.unfold(signs, window.kernel, window.dilation, window.padding, window.stride)
    sums = torch.stack([_followed(image, steps) for image in patches])
    return sums.view(len(signs), -1, *window.places(signs.shape[2:])).to(signs.dtype)


@torch.library.impl("netwright::reused_linear", "CPU")
def _(signs: Tensor, *steps: Tensor) -> Tensor:
    """signs (R, n) -> sums (R, O)."""
    return _followed(signs.t(), list(steps)).t().to(signs.dtype)


def _followed(patches: Tensor, steps: list[Tensor]) -> Tensor:
    """patches (n, P) -> sums (O, P) int16, so many places at a time that they stay in the caches."""
    made = torch.empty(len(steps[0]), patches.shape[1], dtype=torch.int16)
    plan = [step.numpy() for step in steps]
    for start in range(0, patches.shape[1], _PLACES):
        some = slice(start, start + _PLACES)
        part = patches[:, some].to(torch.int16).contiguous()
        sums = np.empty((len(made), part.shape[1]), np.int16)
        _loops().follow(part.numpy(), *plan, sums)
        made[:, some] = torch.from_numpy(sums)
    return made


def _window(settings: list[int]) -> xnor.Window:
    kernel, stride, padding, dilation = ((a, b) for a, b in zip(settings[::2], settings[1::2], strict=True))
    return xnor.Window(kernel, stride, padding, dilation)


@cache
def _loops() -> Any:
    try:
        from netwright.compress.mst_bnn import loops
    except Exception as error:  # a numba that does not fit this numpy is no ImportError
        raise MissingExtra("numba", "kernels", "channels computed from one another") from error
    return loops


@register_flop_formula(torch.ops.netwright.reused_conv, get_raw=True)
def _(signs: Tensor, order: Tensor, parent: Tensor, positions: Tensor, *rest: Any, **_: Any) -> int:
    high, wide = _window(rest[-1]).places(signs.shape[2:])
    return 2 * len(signs) * len(positions) * high * wide


@register_flop_formula(torch.ops.netwright.reused_linear, get_raw=True)
def _(signs: Tensor, order: Tensor, parent: Tensor, positions: Tensor, *_: Any, **__: Any) -> int:
    return 2 * len(signs) * len(positions)
