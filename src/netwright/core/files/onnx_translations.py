"""Operators that the ONNX exporter lacks or writes in a way that loses accuracy, as ONNX writes them here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def _log_sigmoid(self: Any) -> Any:
    """-softplus(-x), which is finite wherever x is; the exporter's log(sigmoid(x)) is -inf below -88."""
    from onnxscript import opset20

    op: Any = opset20
    return op.Neg(op.Softplus(op.Neg(self)))


def _least(self: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    """Over all dimensions where none is named, which the exporter refuses."""
    from onnxscript import opset20

    op: Any = opset20
    return op.ReduceMin(self, *_axes(op, dim), keepdims=int(keepdim))


def _greatest(self: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    from onnxscript import opset20

    op: Any = opset20
    return op.ReduceMax(self, *_axes(op, dim), keepdims=int(keepdim))


def _axes(op: Any, dim: Sequence[int]) -> list[Any]:
    return [op.Constant(value_ints=list(dim))] if dim else []


_aten = torch.ops.aten
# for torch.onnx.export's custom_translation_table
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    _aten.log_sigmoid.default: _log_sigmoid,
    _aten.amin.default: _least,
    _aten.amax.default: _greatest,
}
