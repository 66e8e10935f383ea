"""Quantised networks: QuantizeLinear and DequantizeLinear, and integer products with dynamic ranges.

A pair of the two around an activation becomes one rounding step whose gradient passes straight through, so that
the network can be trained; weights that the file stores as integers become floating parameters.
"""

from __future__ import annotations

from typing import Any

import torch

from netwright.core.files.onnx_import import functions
from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.registry import Node, reads
from netwright.core.files.onnx_import.values import Const, Results, Value

_RANGE = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.uint16: (0, 65535),
    torch.int16: (-32768, 32767),
}


@reads("QuantizeLinear")
def _quantise(e: Emitter, n: Node) -> Results:
    x, scale, zero = _grid(n)
    low, high = _RANGE[zero.tensor.dtype]
    axis = n.attribute("axis", 1)
    made = e.call(functions.quantise, x, scale, zero, axis, low, high, zero.tensor.dtype)
    if isinstance(made, Value):
        made.rounded = (x, scale, zero, axis, low, high)
    return made


def _grid(n: Node) -> tuple[Any, Const, Const]:
    x, scale = n.operand(0), n.operand(1)
    if not isinstance(scale, Const):
        raise n.refuse("with a scale that is computed")
    kind = torch.uint8 if n.op == "QuantizeLinear" else _type(x)
    zero = n.operand(2) if n.has(2) else Const(torch.zeros_like(scale.tensor, dtype=kind))
    if not isinstance(zero, Const):
        raise n.refuse("with a zero point that is computed")
    if zero.tensor.dtype not in (*_RANGE, torch.int32):
        raise n.refuse(f"of {zero.tensor.dtype}", "int8, uint8, int16, uint16")
    if n.attribute("block_size", 0) or scale.dim > 1:
        raise n.refuse("in blocks")
    return x, Const(scale.tensor), zero


def _type(x: Any) -> torch.dtype:
    return x.probes[0].dtype if isinstance(x, Value) else x.tensor.dtype


@reads("DequantizeLinear")
def _dequantise(e: Emitter, n: Node) -> Results:
    x, scale, zero = _grid(n)
    axis = n.attribute("axis", 1)
    if isinstance(x, Const):
        tensor = functions.dequantise(x.tensor, scale.tensor, zero.tensor, axis)
        return Const(tensor, x.name and f"{x.name}.float", x.weight, path=x.name or x.path)
    if not x.rounded:
        return e.call(functions.dequantise, x, scale, zero, axis)
    source, its_scale, its_zero, its_axis, low, high = x.rounded
    same = torch.equal(scale.tensor, its_scale.tensor) and torch.equal(zero.tensor, its_zero.tensor)
    if not same or (scale.tensor.numel() > 1 and axis != its_axis):
        return e.call(functions.dequantise, x, scale, zero, axis)
    if scale.tensor.numel() == 1:
        number, offset = scale.tensor.item(), int(zero.tensor)
        return e.call(torch.fake_quantize_per_tensor_affine, source, number, offset, low, high)
    offsets = Const(zero.tensor.to(torch.int32))
    rows = axis % source.dim
    return e.call(torch.fake_quantize_per_channel_affine, source, scale, offsets, rows, low, high)


@reads("DynamicQuantizeLinear")
def _dynamic(e: Emitter, n: Node) -> Results:
    return tuple(e.call(functions.quantise_dynamically, n.operand(0)))


@reads("MatMulInteger")
def _matmul_integer(e: Emitter, n: Node) -> Results:
    a_zero, b_zero = (n.operand(i) if n.has(i) else 0 for i in (2, 3))
    return e.call(functions.integer_product, n.operand(0), n.operand(1), a_zero, b_zero)


@reads("ConvInteger")
def _conv_integer(e: Emitter, n: Node) -> Results:
    rank = n.operand(1).dim - 2
    if n.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise n.refuse("with auto_pad")
    pads = n.attribute("pads") or [0] * 2 * rank
    both = [p for i in reversed(range(rank)) for p in (pads[i], pads[rank + i])]
    x_zero, w_zero = (n.operand(i) if n.has(i) else 0 for i in (2, 3))
    ones = [1] * rank
    return e.call(
        functions.integer_convolution, n.operand(0), n.operand(1), x_zero, w_zero,
        n.attribute("strides") or ones, both, n.attribute("dilations") or ones, n.attribute("group", 1),
    )  # fmt: skip
