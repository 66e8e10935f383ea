"""Stretches of 8-bit layers as integer kernels compute them, to the bit, in torch's own operators.

A network holds a layer between two roundings as: unfold to float, convolve, round again. Float sums differ from
integer sums in their last digits, so that now and then a value falls on the other side of the border between two steps
of its grid, and one row in a hundred differs by some thousandths of the largest output. Here the sums are exact, and
the way back to 8 bits is that of ONNX Runtime's kernels on x86 (MLAS): one float32 factor, input scale times weight
scale over output scale, rounded half to even.

A .pt2 written so gives the outputs of the .onnx in ONNX Runtime, bit for bit, as long as all between two roundings is
convolutions, linear layers, sums, concatenations, ReLU, pooling by maximum, averages over all positions and reshaping.
Averages stay float in both, but of codes whose scale has few significant bits (compress/static_int8.py), so that their
sums are exact in any order. What else stays float (attention, normalisation, GELU, a gate's sigmoid) has last digits of
its own in each, and a value that they place on a border between two steps still falls to either side: about one row in
a hundred in a vision transformer, hardly ever behind activations alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor, fx

_aten = torch.ops.aten
_int8 = torch.ops.quantized_decomposed
_ROUND = _int8.quantize_per_tensor.default
_UNFOLD = _int8.dequantize_per_tensor.default
_UNFOLD_ROWS = _int8.dequantize_per_channel.default
_CONVOLUTIONS = {
    _aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default,
    _aten.conv1d.padding, _aten.conv2d.padding, _aten.conv3d.padding,
}  # fmt: skip
_LINEAR = _aten.linear.default
_EXACT = 2**24  # float32 holds every integer up to here

# scale, zero, least code, largest code, dtype: the arguments of quantize_per_tensor behind its input
Grid = tuple[float, int, int, int, torch.dtype]


def integer_layers(program: torch.export.ExportedProgram) -> int:
    """Rewrite, in place, layers and sums between roundings; how many. The graph then holds functions of this module,
    which `run_decompositions` writes out in torch's operators.

    ONNX Runtime runs the same stretches in integers: convolutions whose result is rounded, linear layers on (B, I),
    and sums of two rounded tensors, with a ReLU in between where the grid begins at nothing.
    """
    graph, tensors = program.graph, _tensors(program)
    written = 0
    for node in list(graph.nodes):
        if node.target is _ROUND:
            written += _before(graph, node, tensors)
    for node in list(graph.nodes):
        if node.target is _LINEAR and _in_integers(node) and node.meta["val"].dim() == 2:
            _replace(graph, node, _layer_values, _layer_arguments(node, tensors))
            written += 1
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return written


def _before(graph: fx.Graph, rounding: Any, tensors: dict[str, Tensor]) -> bool:
    """Replace a rounding and what it alone reads; whether that was a layer or a sum."""
    grid: Grid = rounding.args[1:]
    made = rounding.args[0]
    if made.target is _aten.relu.default and len(made.users) == 1 and grid[1] == grid[2]:
        made = made.args[0]  # what the ReLU cuts off lies below the grid
    if len(made.users) != 1:
        return False
    if made.target in _CONVOLUTIONS | {_LINEAR} and _in_integers(made):
        if made.target is _LINEAR and made.meta["val"].dim() != 2:
            return False
        _replace(graph, rounding, _layer_codes, (*_layer_arguments(made, tensors), grid))
        return True
    if made.target is _aten.add.Tensor and not made.kwargs and all(map(_unfolded, made.args)):
        (a, *of_a), (b, *of_b) = (read.args for read in made.args)
        _replace(graph, rounding, _sum_codes, (a, tuple(of_a[:2]), b, tuple(of_b[:2]), grid))
        return True
    return False


def _replace(graph: fx.Graph, node: fx.Node, function: Callable[..., Tensor], arguments: Any) -> None:
    with graph.inserting_before(node):
        new = graph.call_function(function, arguments)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)


def _unfolded(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is _UNFOLD and node.args[-1] == torch.uint8


def _in_integers(layer: Any) -> bool:
    """Whether input and weight are 8-bit, and the bias, if any, counts in units of the sums."""
    x, weight, *rest = layer.args
    bias = rest[0] if rest else None
    return _unfolded(x) and _rows(weight, 0) and (bias is None or _rows(bias, 0)) and not layer.kwargs


def _rows(node: Any, axis: int) -> bool:
    return isinstance(node, fx.Node) and node.target is _UNFOLD_ROWS and bool(node.args[3] == axis)


def _layer_arguments(layer: Any, tensors: dict[str, Tensor]) -> tuple[Any, ...]:
    """For `_sums` and what follows it: operator and settings, input, scale and zero, weight, its scale, bias, kinds."""
    (codes, scale, zero, *_), (weight, scales, *_) = layer.args[0].args, layer.args[1].args
    bias = layer.args[2].args[0] if len(layer.args) > 2 and layer.args[2] is not None else None
    kinds = _kinds(zero, tensors.get(weight.name), None if bias is None else tensors.get(bias.name))
    return (layer.target, tuple(layer.args[3:]), codes, (scale, zero), weight, scales, bias, kinds)


def _kinds(zero: int, weight: Tensor | None, bias: Tensor | None) -> tuple[torch.dtype, torch.dtype]:
    """Float types that hold every partial sum exactly: of the products, and with the bias."""
    if weight is None:
        return torch.float64, torch.float64
    largest = weight.long().abs().flatten(1).sum(1) * max(zero, 255 - zero)
    whole = largest if bias is None else largest + bias.long().abs()
    products, sums = ((torch.float32 if int(t.max()) < _EXACT else torch.float64) for t in (largest, whole))
    return products, sums


def _tensors(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """The tensors that the program holds, by the names of their placeholders."""
    signature = program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return {name: program.state_dict[target] for name, target in held.items() if target in program.state_dict}


def _sums(
    operator: Any, settings: tuple[Any, ...], codes: Tensor, zero: int, weight: Tensor, bias: Tensor | None,
    kinds: tuple[torch.dtype, torch.dtype],
) -> Tensor:  # fmt: skip
    """(B, I, ...) -> (B, O, ...) float32: products and bias summed as integers, then rounded once."""
    products, sums = kinds
    total = operator(codes.to(products) - zero, weight.to(products), None, *settings)
    if bias is not None:
        total = total.to(sums) + bias.to(sums).view(-1, *[1] * (total.dim() - 2))
    return total.to(torch.float32)


def _layer_values(
    operator: Any, settings: tuple[Any, ...], codes: Tensor, grid: tuple[float, int], weight: Tensor,
    scales: Tensor, bias: Tensor | None, kinds: tuple[torch.dtype, torch.dtype],
) -> Tensor:  # fmt: skip
    """The layer's outputs as floats."""
    total = _sums(operator, settings, codes, grid[1], weight, bias, kinds)
    return total * _per_channel(scales * grid[0], total)


def _layer_codes(
    operator: Any, settings: tuple[Any, ...], codes: Tensor, grid: tuple[float, int], weight: Tensor,
    scales: Tensor, bias: Tensor | None, kinds: tuple[torch.dtype, torch.dtype], to: Grid,
) -> Tensor:  # fmt: skip
    """The layer's outputs on the grid `to`."""
    total = _sums(operator, settings, codes, grid[1], weight, bias, kinds)
    return _coded(total * _per_channel(scales * grid[0] / to[0], total), to)


def _per_channel(factors: Tensor, total: Tensor) -> Tensor:
    return factors.view(-1, *[1] * (total.dim() - 2))


def _sum_codes(a: Tensor, of_a: tuple[float, int], b: Tensor, of_b: tuple[float, int], to: Grid) -> Tensor:
    """a + b on the grid `to`, by fused multiply-adds in float32: the product is not rounded before it is added."""
    ratio_a, ratio_b = (_single(_single(scale) / _single(to[0])) for scale in (of_a[0], of_b[0]))
    fixed = _single(to[1] - _single(ratio_a * of_a[1] + _single(ratio_b * of_b[1])))
    half = (b.double() * ratio_b + fixed).float()
    return _clamped(torch.round((a.double() * ratio_a + half.double()).float()), to)


def _single(value: float) -> float:
    """The nearest float32."""
    return float(np.float32(value))


def _coded(steps: Tensor, to: Grid) -> Tensor:
    return _clamped(torch.round(steps) + to[1], to)


def _clamped(codes: Tensor, to: Grid) -> Tensor:
    return torch.clamp(codes, to[2], to[3]).to(to[4])


def rounded(x: Tensor, scale: float, zero: int, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """x on its grid, as ONNX's QuantizeLinear defines it: divided, not multiplied by the inverse."""
    return _coded(x / scale, (scale, zero, low, high, dtype))
