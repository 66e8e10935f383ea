"""Operators that move numbers without changing them."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from netwright.core.files.onnx_import import functions
from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.registry import Node, reads
from netwright.core.files.onnx_import.values import Const, Results, Size, Value


@reads("Reshape")
def _reshape(e: Emitter, n: Node) -> Results:
    x = n.operand(0)
    sizes = n.sizes(1) if n.has(1) else list(n.attribute("shape"))
    if isinstance(x, Const) and not any(isinstance(s, Size) for s in sizes):
        kept = [x.shape[i] if s == 0 and not n.attribute("allowzero", 0) else s for i, s in enumerate(sizes)]
        return Const(x.tensor.reshape(kept), x.name and f"{x.name}.{kept}", x.weight, path=x.name or x.path)
    if not n.attribute("allowzero", 0):
        sizes = [e.size(x, i) if isinstance(s, int) and s == 0 else s for i, s in enumerate(sizes)]
    sizes, outer = _batched(e, x, sizes)
    if len(sizes) == 2 and _same_first(x, sizes[0]) and x.dim > 2 and _rest(x, sizes[1]):
        return e.module(nn.Flatten(1), x)
    made = e.method("reshape", x, sizes)
    if isinstance(made, Value):
        made.outer = outer
    return made


def _batched(e: Emitter, x: Any, sizes: list[Any]) -> tuple[list[Any], int]:
    """The sizes for any batch, and `Value.outer` of the result.

    A file that fixes its batch says, for a batch of one, (1, -1) or (8, 16, 4) for eight heads: these become
    (batch, -1) and (8 * batch, 16, 4). A file that does not fix it may say (-1, 10): this becomes (batch, 10).
    """
    axis = x.batch_axis if isinstance(x, Value) else None
    if axis is None or not all(isinstance(s, int) for s in sizes):
        return sizes, 1
    if e.batch is None:
        rest = math.prod(sizes[1:])
        whole = axis == 0 and sizes[:1] == [-1] and all(p.numel() == p.shape[0] * rest for p in x.probes)
        return ([e.size(x, 0), *sizes[1:]] if whole else sizes), 1
    batches = x.batch_sizes()[0] // e.probe_batches[0]  # how often the axis holds the batch
    filled = _without_gap(sizes, x.probes[0].numel() // e.probe_batches[0] * e.batch)
    before = math.prod(x.shape[:axis]) * x.outer
    place, outer = _batch_place(filled, before, e.batch)
    if place is None:
        return sizes, 1
    size = e.size(x, axis)
    if filled[place] != e.batch * batches:
        size = (size // batches) * (filled[place] // e.batch)
    return [*filled[:place], size, *filled[place + 1 :]], outer


def _without_gap(sizes: list[int], numel: int) -> list[int]:
    known = math.prod(s for s in sizes if s != -1)
    return [numel // known if s == -1 else s for s in sizes]


def _batch_place(sizes: list[int], before: int, batch: int) -> tuple[int | None, int]:
    """Which of the sizes takes the batch, before which so many blocks lie, and how many of these are in it.

    Best is a size that is the batch alone; then one that begins with it, unless it is the last, which mostly
    counts features; then one that it is the end of.
    """
    choices = []
    for place, size in enumerate(sizes):
        done = math.prod(sizes[:place])
        if done and before % done == 0 and size % (before // done * batch) == 0:
            choices.append((place, before // done, size))
    alone = [c for c in choices if c[1] == 1 and c[2] == batch]
    begins = [c for c in choices if c[1] == 1 and (c[0] < len(sizes) - 1 or len(sizes) == 1)]
    for found in (alone, begins, choices):
        if found:
            return found[0][:2]
    return None, 1


def _same_first(x: Any, size: Any) -> bool:
    return isinstance(x, Value) and (
        (isinstance(size, Size) and size.probes == tuple(p.shape[0] for p in x.probes)) or size == x.shape[0]
    )


def _rest(x: Value, size: Any) -> bool:
    return isinstance(size, int) and (size == -1 or all(size == math.prod(p.shape[1:]) for p in x.probes))


@reads("Flatten")
def _flatten(e: Emitter, n: Node) -> Results:
    x, axis = n.operand(0), n.attribute("axis", 1)
    axis = axis % x.dim if axis < 0 else axis
    if axis == 1 and x.dim > 1:
        return e.module(nn.Flatten(1), x)
    first: Any = 1
    for i in range(axis):
        first = e.size(x, i) * first
    return e.method("reshape", x, [first, -1])


@reads("Transpose")
def _transpose(e: Emitter, n: Node) -> Results:
    x = n.operand(0)
    axes = n.attribute("perm") or list(range(x.dim))[::-1]
    return x.permute(tuple(axes)) if isinstance(x, Const) else e.method("permute", x, list(axes))


@reads("Squeeze")
def _squeeze(e: Emitter, n: Node) -> Results:
    x, axes = n.operand(0), n.numbers(1, "axes")
    if axes is None:
        shapes = [p.shape for p in x.probes] if isinstance(x, Value) else [x.shape]
        axes = [i for i in range(x.dim) if all(s[i] == 1 for s in shapes)]
    if any(s != 1 for a in axes for s in {x.shape[a]}):
        raise ValueError(f"cannot squeeze axes {axes} of {list(x.shape)}")
    return e.method("squeeze", x, axes)


@reads("Unsqueeze")
def _unsqueeze(e: Emitter, n: Node) -> Results:
    x, axes = n.operand(0), n.numbers(1, "axes") or []
    for axis in sorted(a % (x.dim + len(axes)) for a in axes):
        x = e.method("unsqueeze", x, axis)
    return x


@reads("Concat")
def _concat(e: Emitter, n: Node) -> Results:
    parts = [e.tensor(v) if isinstance(v, np.ndarray) else n.operand(i) for i, v in enumerate(n.inputs)]
    axis = n.attribute("axis")
    axis = axis % parts[0].dim
    widest = next((v for v in parts if isinstance(v, Value) and v.batch_axis not in (None, axis)), None)
    if widest is not None and e.batch == 1:
        parts = [_as_wide(e, v, widest) for v in parts]
    return parts[0] if len(parts) == 1 else e.call(torch.cat, parts, axis)


def _as_wide(e: Emitter, part: Any, widest: Value) -> Any:
    """A file that fixes the batch at one joins a learned token, say, as if it were an example: one for each."""
    axis = widest.batch_axis
    assert axis is not None
    if part.shape[axis] != 1 or (isinstance(part, Value) and part.varies(axis)):
        return part
    sizes: list[Any] = [-1] * part.dim
    sizes[axis] = e.size(widest, axis)
    return e.method("expand", part, sizes)


@reads("Split")
def _split(e: Emitter, n: Node) -> Results:
    x, sizes = n.operand(0), n.numbers(1, "split")
    axis = n.attribute("axis", 0) % x.dim
    if sizes is None:
        count = n.attribute("num_outputs", len(n.used))
        whole = x.shape[axis]
        each = -(-whole // count)
        sizes = [each] * (count - 1) + [whole - each * (count - 1)]
    return tuple(e.call(torch.split, x, sizes, axis))


@reads("Slice")
def _slice(e: Emitter, n: Node) -> Results:
    x = n.operand(0)
    starts = n.sizes(1) if n.has(1) else n.attribute("starts")
    ends = n.sizes(2) if n.has(2) else n.attribute("ends")
    axes = n.numbers(3, "axes") or list(range(len(starts)))
    steps = n.integers(4) or [1] * len(axes)
    window: list[Any] = [slice(None)] * x.dim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0:
            x, start, end = _reversed(e, n, x, axis, start, end)
        start = None if isinstance(start, int) and start == 0 else start
        end = None if isinstance(end, int) and end >= 2**31 - 1 else end
        window[axis] = slice(start, end, abs(step) if abs(step) != 1 else None)
    return x if window == [slice(None)] * x.dim else e.call(operator.getitem, x, tuple(window))


def _reversed(e: Emitter, n: Node, x: Any, axis: int, start: Any, end: Any) -> tuple[Any, int, Any]:
    """x flipped along the axis, with the bounds counted from its end."""
    size = e.size(x, axis)
    if not all(isinstance(v, int) for v in (size, start, end)):
        raise n.refuse("with a negative step and bounds that are computed")
    first = min(start + size if start < 0 else start, size - 1)
    last = max(end + size if end < 0 else end, -1)
    return e.call(torch.flip, x, [axis]), size - 1 - first, size - 1 - last


@reads("Expand")
def _expand(e: Emitter, n: Node) -> Results:
    x, wanted = n.operand(0), n.sizes(1)
    rank = max(x.dim, len(wanted))
    if x.dim < rank:
        x = e.method("reshape", x, [1] * (rank - x.dim) + e.sizes(x))
    wanted = [1] * (rank - len(wanted)) + wanted
    return e.method("expand", x, [-1 if isinstance(w, int) and w == 1 else w for w in wanted])


@reads("Tile")
def _tile(e: Emitter, n: Node) -> Results:
    return e.method("repeat", n.operand(0), n.sizes(1))


@reads("ConstantOfShape")
def _constant_of_shape(e: Emitter, n: Node) -> Results:
    value = n.attribute("value", torch.zeros(1))
    sizes = n.sizes(0)
    if not any(isinstance(s, Size) for s in sizes):
        return Const(torch.full(sizes, value.item(), dtype=value.dtype), path=e.scope)
    made = e.call(functions.filled, e.first, sizes, value.item(), value.dtype)
    made.zeros = value.item() == 0
    return made


@reads("Range")
def _range(e: Emitter, n: Node) -> Results:
    ends = [_number(v) for v in n.inputs]
    if any(isinstance(v, Value) for v in ends):
        raise n.refuse("with ends that are computed from data")
    if not any(isinstance(v, Size) for v in ends):
        kind = next((v.tensor.dtype for v in n.inputs if isinstance(v, Const)), torch.int64)
        return Const(torch.arange(*ends, dtype=kind), path=e.scope)
    return e.call(functions.count_up, e.first, *ends)


def _number(operand: Any) -> Any:
    if isinstance(operand, Const):
        return operand.tensor.item()
    return operand if isinstance(operand, Value) else operand.ravel()[0]


@reads("Pad")
def _pad(e: Emitter, n: Node) -> Results:
    x, mode = n.operand(0), n.attribute("mode", "constant")
    pads = n.sizes(1) if n.has(1) else n.attribute("pads") or n.attribute("paddings")
    axes = [a % x.dim for a in n.integers(3) or range(x.dim)]
    before, after = pads[: len(axes)], pads[len(axes) :]
    if mode != "constant":
        for axis, b, a in zip(axes, before, after, strict=True):
            if not (isinstance(a, int) and isinstance(b, int) and a == b == 0):
                x = e.call(functions.pad_by_index, x, axis, b, a, mode)
        return x
    fill = n.constant(2)
    value = n.attribute("value", 0.0) if fill is None else fill.item()
    by_axis = dict(zip(axes, zip(before, after, strict=True), strict=True))
    both = [v for axis in reversed(range(x.dim)) for v in by_axis.get(axis, (0, 0))]
    while len(both) > 2 and both[-2:] == [0, 0]:
        both = both[:-2]
    return e.call(F.pad, x, both, value=value)


@reads("Trilu")
def _triangle(e: Emitter, n: Node) -> Results:
    offset = n.integers(1) or [0]
    return e.call(torch.triu if n.attribute("upper", 1) else torch.tril, n.operand(0), offset[0])


@reads("EyeLike")
def _eye(e: Emitter, n: Node) -> Results:
    from netwright.core.files.onnx_import.registry import torch_type

    x = n.operand(0)
    rows, columns = x.shape
    own = x.probes[0].dtype if isinstance(x, Value) else x.tensor.dtype
    kind = torch_type(n.attribute("dtype")) if n.attribute("dtype") else own
    ones = torch.ones(rows, columns, dtype=kind)
    k = n.attribute("k", 0)
    return Const(ones.triu(k).tril(k))


@reads("DepthToSpace", "SpaceToDepth")
def _blocks(e: Emitter, n: Node) -> Results:
    x, block = n.operand(0), n.attribute("blocksize")
    b, c, h, w = e.sizes(x)
    if n.op == "SpaceToDepth":
        split = e.method("reshape", x, [b, c, h // block, block, w // block, block])
        order = [0, 3, 5, 1, 2, 4] if n.attribute("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
        moved = e.method("permute", split, order)
        return e.method("reshape", moved, [b, c * block * block, h // block, w // block])
    if n.attribute("mode", "DCR") == "CRD":
        return e.module(nn.PixelShuffle(block), x)
    split = e.method("reshape", x, [b, block, block, c // (block * block), h, w])
    moved = e.method("permute", split, [0, 3, 4, 1, 5, 2])
    return e.method("reshape", moved, [b, c // (block * block), h * block, w * block])
