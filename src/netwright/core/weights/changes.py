"""Convolutions and linear layers brought up to date by what has changed of their input since they last ran.

z_t = z_(t-1) + W (x_t - x_(t-1)): where few inputs change, few products are needed. Compiled by numba (the extra
`kernels`) when first used, on the processor, one thread; elsewhere everything is computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.core.errors import MissingExtra
from netwright.core.graph.ir import HELD, Graph, Node
from netwright.core.weights import kernels

_CONV = ("aten.conv2d.default", "aten.conv2d.padding")
_LINEAR = "aten.linear.default"
# the share of inputs up to which changes are faster than all (benchmarks/delta_frames.py): oneDNN's convolutions run at
# ten times the products per second
_CONV_PAYS, _LINEAR_PAYS = 0.04, 0.25


class Changes:
    """One layer of a traced network, of 2-d convolutions and linear layers whose weight the network holds.

    A map (N, I, H, W) is seen as (N, H, W, I) here; what a linear layer takes, (N, ..., I), as (N, R, 1, I).
    """

    def __init__(self, graph: Graph, node: Node) -> None:
        weight, *bias = (graph.held(arg).detach() for arg in node.args[1:3] if isinstance(arg, Node))
        self.bias = bias[0] if bias else None
        self.linear = node.op == _LINEAR
        options = _options(node, weight)
        assert options is not None
        self.weight = weight[..., None, None] if self.linear else weight
        self.stride, self.padding, self.dilation, self.groups = options
        # (kh, kw, I / groups, O), so that all that one input reaches at one place lies in one piece
        self.taps = self.weight.permute(2, 3, 1, 0).contiguous()
        self.before: Tensor | None = None
        self.sums = torch.empty(0)

    def reset(self) -> None:
        """Forget the last input."""
        self.before = None

    def maps(self, x: Tensor) -> Tensor:
        """The layer's input as (N, H, W, I)."""
        return x.reshape(len(x), -1, 1, x.shape[-1]) if self.linear else x.permute(0, 2, 3, 1)

    def fan_out(self, height: int, width: int) -> Tensor:
        """(H, W): multiply-accumulates that one input at this place takes part in."""
        size = (height, width)
        reached = []
        for axis in (0, 1):
            outer = self._outer(size)[axis]
            place = torch.arange(size[axis])[:, None] + self.padding[axis]
            start = place - torch.arange(self.taps.shape[axis]) * self.dilation[axis]
            step = self.stride[axis]
            reached.append(((start % step == 0) & (start >= 0) & (start < outer * step)).sum(1))
        return torch.outer(*reached) * (self.taps.shape[3] // self.groups)

    def _outer(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output."""
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.taps.shape[:2], strict=True)]
        h, w = (
            (n + 2 * p - r) // s + 1
            for n, p, r, s in zip(size, self.padding, reach, self.stride, strict=True)
        )
        return h, w

    def __call__(self, x: Tensor, dense_above: float | None = None) -> Tensor:
        """The layer's output for a single example. dense_above: anew where a larger share of the input has changed,
        which also ends what rounding has added up; default where that is faster."""
        dense_above = (_LINEAR_PAYS if self.linear else _CONV_PAYS) if dense_above is None else dense_above
        maps = self.maps(x)[0].contiguous()
        before = self.before
        if before is None or before.shape != maps.shape or not served(maps):
            changed = math.inf
        else:
            changed = float(torch.count_nonzero(maps != before))
        if before is None or changed > dense_above * maps.numel():
            self._anew(maps)
        else:
            arrays = (t.numpy() for t in (self.sums, before, maps, self.taps))
            _compiled()(*arrays, *self.stride, *self.padding, *self.dilation, self.groups)
        kept = self.sums.clone()  # the next operator may work in place
        return kept.reshape(*x.shape[:-1], -1) if self.linear else kept.permute(2, 0, 1)[None]

    def _anew(self, maps: Tensor) -> None:
        x = maps.permute(2, 0, 1)[None]
        made = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        self.sums = made[0].permute(1, 2, 0).contiguous()
        self.before = maps.clone()


def layers(graph: Graph) -> dict[Node, Changes]:
    """The layers of a traced network that can be brought up to date."""
    return {node: Changes(graph, node) for node in graph.nodes if _follows(graph, node)}


def _follows(graph: Graph, node: Node) -> bool:
    if not (node.op == _LINEAR or node.op in _CONV) or node.kwargs:
        return False
    source, *held = (arg for arg in node.args[:3] if isinstance(arg, Node))
    fits = len(source.shape) == 4 if node.op in _CONV else len(source.shape) > 1
    return fits and all(arg.op in HELD for arg in held) and _options(node, graph.held(held[0])) is not None


def served(x: Tensor) -> bool:
    """Whether the kernel may work on this input."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and kernels.available()


_Two = tuple[int, int]


def _options(node: Node, weight: Tensor) -> tuple[_Two, _Two, _Two, int] | None:
    """stride, padding, dilation, groups; None where the two sides are padded differently."""
    if node.op == _LINEAR:
        return (1, 1), (0, 0), (1, 1), 1
    given = [*node.args[3:], *([1, 1], [0, 0], [1, 1], 1)[len(node.args[3:]) :]]
    stride, padding, dilation, groups = given
    two = lambda value: (int(value[0]), int(value[-1]))
    if padding == "valid":
        padding = [0, 0]
    elif padding == "same":
        reach = [d * (k - 1) for d, k in zip(two(dilation), weight.shape[2:], strict=True)]
        if any(r % 2 for r in reach):
            return None
        padding = [r // 2 for r in reach]
    return two(stride), two(padding), two(dilation), int(groups)


@cache
def _compiled() -> Callable[..., None]:
    """The loop as machine code. All that has changed at one place of the input is multiplied at once, four channels
    at a time, so that a sum is read and written a quarter as often."""
    try:
        import numba
    except Exception as error:
        raise MissingExtra("numba", "kernels", "a layer that follows changes") from error

    @numba.njit(fastmath={"reassoc", "contract", "nsz"}, nogil=True)
    def update(sums, before, now, taps, sh, sw, ph, pw, dh, dw, groups):  # type: ignore[no-untyped-def]
        height, width, inner = now.shape
        outer, some = sums.shape[2] // groups, inner // groups
        places, sizes = np.empty(some, np.int64), np.empty(some, now.dtype)
        for i in range(height):
            for j in range(width):
                for g in range(groups):
                    count = 0
                    for c in range(some):
                        d = now[i, j, g * some + c] - before[i, j, g * some + c]
                        if d != 0:
                            before[i, j, g * some + c] = now[i, j, g * some + c]
                            places[count], sizes[count] = c, d
                            count += 1
                    whole = count - count % 4
                    for u in range(taps.shape[0] if count else 0):
                        p = i + ph - u * dh
                        if p < 0 or p % sh != 0 or p // sh >= sums.shape[0]:
                            continue
                        for v in range(taps.shape[1]):
                            q = j + pw - v * dw
                            if q < 0 or q % sw != 0 or q // sw >= sums.shape[1]:
                                continue
                            y, x = p // sh, q // sw
                            for k in range(0, whole, 4):
                                a, b, e, f = places[k], places[k + 1], places[k + 2], places[k + 3]
                                sa, sb, se, sf = sizes[k], sizes[k + 1], sizes[k + 2], sizes[k + 3]
                                for o in range(g * outer, (g + 1) * outer):
                                    first = sa * taps[u, v, a, o] + sb * taps[u, v, b, o]
                                    sums[y, x, o] += first + (se * taps[u, v, e, o] + sf * taps[u, v, f, o])
                            for k in range(whole, count):
                                a, sa = places[k], sizes[k]
                                for o in range(g * outer, (g + 1) * outer):
                                    sums[y, x, o] += sa * taps[u, v, a, o]

    return update
