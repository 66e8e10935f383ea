"""Convolution and pooling."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.functions import average_inside, pad_same
from netwright.core.files.onnx_import.registry import Node, reads
from netwright.core.files.onnx_import.values import Const, Results

_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_FUNCTIONS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAX: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_GLOBAL_AVERAGE: dict[int, Any] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_GLOBAL_MAX: dict[int, Any] = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}


def _rank(n: Node, table: dict[int, Any], rank: int) -> Any:
    if rank not in table:
        raise n.refuse(f"in {rank} dimensions", "1, 2 and 3")
    return table[rank]


class _Window(NamedTuple):
    """x, padded beforehand where a layer cannot do it itself (by `outside`, as F.pad takes it)."""

    x: Any
    stride: list[int]
    pads: list[int]
    dilation: list[int]
    outside: list[int]


def _window(e: Emitter, n: Node, x: Any, kernel: list[int], fill: float) -> _Window:
    rank = len(kernel)
    stride = n.attribute("strides") or [1] * rank
    dilation = n.attribute("dilations") or [1] * rank
    none = [0] * rank
    auto = n.attribute("auto_pad", "NOTSET")
    pads = n.attribute("pads") or none * 2
    if auto == "VALID":
        pads = none * 2
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        found = _same_pads(e, x, kernel, stride, dilation, auto == "SAME_UPPER")
        if found is None:
            if n.op == "AveragePool":
                raise n.refuse("with auto_pad and a size that varies")
            x = e.call(pad_same, x, kernel, stride, dilation, auto == "SAME_UPPER", fill)
            return _Window(x, stride, none, dilation, [])
        pads = found
    before, after = pads[:rank], pads[rank:]
    if before == after and (n.op == "Conv" or all(2 * p <= k for p, k in zip(before, kernel, strict=True))):
        return _Window(x, stride, before, dilation, [])
    both = [p for i in reversed(range(rank)) for p in (before[i], after[i])]
    return _Window(e.call(F.pad, x, both, value=fill), stride, none, dilation, both)


def _same_pads(
    e: Emitter, x: Any, kernel: list[int], stride: list[int], dilation: list[int], upper: bool
) -> Any:
    """The pads, where the sizes are known when the network is read."""
    sizes = e.sizes(x)[2:]
    if not all(isinstance(s, int) for s in sizes):
        return None
    less, more = [], []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        less.append(total // 2)
        more.append(total - total // 2)
    return less + more if upper else more + less


@reads("Conv")
def _conv(e: Emitter, n: Node) -> Results:
    x, weight = n.operand(0), n.operand(1)
    rank = weight.dim - 2
    kernel = list(weight.shape[2:])
    groups = n.attribute("group", 1)
    bias = n.operand(2) if n.has(2) else None
    w = _window(e, n, x, kernel, 0.0)
    if not isinstance(weight, Const) or not (bias is None or isinstance(bias, Const)):
        function = _rank(n, _FUNCTIONS, rank)
        return e.call(function, w.x, weight, bias, w.stride, w.pads, w.dilation, groups)
    layer = _rank(n, _CONV, rank)(
        weight.shape[1] * groups, weight.shape[0], kernel, w.stride, w.pads, w.dilation, groups,
        bias=bias is not None, device="meta",
    )  # fmt: skip
    return e.module(_filled(e, layer, weight, bias), w.x, name=layer_name(weight))


def _filled(e: Emitter, layer: nn.Module, weight: Const, bias: Const | None) -> nn.Module:
    layer.weight = e.parameter(weight)
    if bias is not None:
        layer.bias = e.parameter(bias)
    return layer


def layer_name(weight: Const) -> str:
    """'layer1.conv' for a weight that the file calls 'layer1.conv.weight'."""
    name = weight.name or weight.path
    stem, dot, last = name.rpartition(".")
    return stem if dot and last in ("weight", "w", "W") and "::" not in name else ""


@reads("ConvTranspose")
def _conv_transpose(e: Emitter, n: Node) -> Results:
    x, weight = n.operand(0), n.operand(1)
    rank, groups = weight.dim - 2, n.attribute("group", 1)
    kernel, bias = list(weight.shape[2:]), n.operand(2) if n.has(2) else None
    stride, dilation = n.attribute("strides") or [1] * rank, n.attribute("dilations") or [1] * rank
    extra = n.attribute("output_padding") or [0] * rank
    if not isinstance(weight, Const) or not (bias is None or isinstance(bias, Const)):
        raise n.refuse("with a computed weight")
    before, after = _cuts(e, n, x, kernel, stride, dilation, extra)
    if min(before + after) < 0 or any(
        o >= max(s, d) for o, s, d in zip(extra, stride, dilation, strict=True)
    ):
        raise n.refuse("with an output larger than its windows reach")
    # a layer cuts both ends by the same; what is left is cut from its output
    both = [min(b, a) for b, a in zip(before, after, strict=True)]
    layer = _rank(n, _TRANSPOSED, rank)(
        weight.shape[0], weight.shape[1] * groups, kernel, stride, both, extra, groups, bias is not None,
        dilation, device="meta",
    )  # fmt: skip
    made = e.module(_filled(e, layer, weight, bias), x, name=layer_name(weight))
    if before == after:
        return made
    rest = [slice(b - c or None, c - a or None) for b, a, c in zip(before, after, both, strict=True)]
    return e.call(operator.getitem, made, (slice(None), slice(None), *rest))


def _cuts(
    e: Emitter, n: Node, x: Any, kernel: list[int], stride: list[int], dilation: list[int], extra: list[int]
) -> tuple[list[int], list[int]]:
    """What is cut from the start and the end of each axis of the whole output."""
    rank, auto = len(kernel), n.attribute("auto_pad", "NOTSET")
    wanted = n.attribute("output_shape")
    if not wanted and not auto.startswith("SAME"):
        pads = [0] * 2 * rank if auto == "VALID" else n.attribute("pads") or [0] * 2 * rank
        return list(pads[:rank]), list(pads[rank:])
    sizes = e.sizes(x)[2:]
    if not all(isinstance(s, int) for s in sizes):
        raise n.refuse("with a fixed output size and an input size that varies")
    wanted = wanted[-rank:] if wanted else [s * t for s, t in zip(sizes, stride, strict=True)]
    totals = [
        s * (size - 1) + o + (k - 1) * d + 1 - w
        for size, s, o, k, d, w in zip(sizes, stride, extra, kernel, dilation, wanted, strict=True)
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (small, large) if auto == "SAME_UPPER" else (large, small)


@reads("MaxPool")
def _max_pool(e: Emitter, n: Node) -> Results:
    n.only_first_output()
    kernel = n.attribute("kernel_shape")
    ceil = bool(n.attribute("ceil_mode", 0))
    w = _window(e, n, n.operand(0), kernel, -torch.inf)
    layer = _rank(n, _MAX, len(kernel))
    made = e.module(layer(kernel, w.stride, w.pads, w.dilation, ceil_mode=ceil), w.x)
    if w.outside and ceil:  # no window may begin in the padding behind
        before = w.outside[-2::-2]
        for axis, (front, stride) in enumerate(zip(before, w.stride, strict=True), start=2):
            count = (e.size(n.operand(0), axis) + front - 1) // stride + 1
            made = e.call(operator.getitem, made, (*[slice(None)] * axis, slice(None, count)))
    return made


@reads("AveragePool")
def _average_pool(e: Emitter, n: Node) -> Results:
    kernel, x = n.attribute("kernel_shape"), n.operand(0)
    count, ceil = bool(n.attribute("count_include_pad", 0)), bool(n.attribute("ceil_mode", 0))
    if any(d != 1 for d in n.attribute("dilations") or []):
        raise n.refuse("with dilation")
    w = _window(e, n, x, kernel, 0.0)
    if w.outside and ceil:
        raise n.refuse("with unequal padding and ceil_mode")
    if w.outside and not count:
        return e.call(average_inside, x, kernel, w.stride, w.outside)
    layer = _rank(n, _AVERAGE, len(kernel))
    return e.module(layer(kernel, w.stride, w.pads, ceil_mode=ceil, count_include_pad=count), w.x)


@reads("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(e: Emitter, n: Node) -> Results:
    x = n.operand(0)
    table = _GLOBAL_AVERAGE if n.op == "GlobalAveragePool" else _GLOBAL_MAX
    return e.module(_rank(n, table, x.dim - 2)(1), x)
