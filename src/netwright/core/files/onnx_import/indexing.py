"""Operators that pick numbers by index, or put them there."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn

from netwright.core.files.onnx_import import functions
from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.layers import layer_name
from netwright.core.files.onnx_import.registry import Node, reads
from netwright.core.files.onnx_import.values import Const, Results, Value


@reads("Gather")
def _gather(e: Emitter, n: Node) -> Results:
    x, index, axis = n.operand(0), n.operand(1), n.attribute("axis", 0)
    axis = axis % x.dim
    floating = isinstance(x, Const) and x.weight and x.tensor.is_floating_point() and x.dim == 2
    if floating and axis == 0 and isinstance(index, Value):
        layer = nn.Embedding(x.shape[0], x.shape[1], device="meta")
        layer.weight = e.parameter(x)
        return e.module(layer, index, name=layer_name(x))
    if isinstance(index, Const) and index.dim == 0:
        return e.call(torch.select, x, axis, int(index.tensor))
    if isinstance(index, Const) and index.dim == 1 and isinstance(x, Value):
        picks = index.tensor.long()
        low, stop = int(picks.min()), int(picks.max()) + 1
        if low >= 0 and stop - low == len(picks) and bool((picks == torch.arange(low, stop)).all()):
            return e.call(operator.getitem, x, (*[slice(None)] * axis, slice(low, stop)))
    return e.call(operator.getitem, x, (*[slice(None)] * axis, _long(e, index)))


def _long(e: Emitter, index: Any) -> Any:
    if isinstance(index, Const):
        return Const(index.tensor.long(), path=index.path)
    return (
        index
        if isinstance(index, Value) and index.probes[0].dtype == torch.int64
        else e.method("long", index)
    )


@reads("GatherElements")
def _gather_elements(e: Emitter, n: Node) -> Results:
    return e.call(functions.gather_elements, n.operand(0), _long(e, n.operand(1)), n.attribute("axis", 0))


@reads("GatherND")
def _gather_nd(e: Emitter, n: Node) -> Results:
    if n.attribute("batch_dims", 0):
        raise n.refuse("with batch_dims", "batch_dims 0")
    return e.call(functions.gather_nd, n.operand(0), _long(e, n.operand(1)))


@reads("ScatterND")
def _scatter_nd(e: Emitter, n: Node) -> Results:
    mode = n.attribute("reduction", "none")
    if mode not in ("none", "add"):
        raise n.refuse(f"reduction {mode}", "none, add")
    return e.call(functions.scatter_nd, n.operand(0), _long(e, n.operand(1)), n.operand(2), mode == "add")


@reads("ScatterElements", "Scatter")
def _scatter(e: Emitter, n: Node) -> Results:
    mode, axis = n.attribute("reduction", "none"), n.attribute("axis", 0)
    index = e.call(functions.from_start, n.operand(0), _long(e, n.operand(1)), axis)
    if mode == "none":
        return e.call(torch.scatter, n.operand(0), axis, index, n.operand(2))
    kinds = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return e.call(torch.scatter_reduce, n.operand(0), axis, index, n.operand(2), kinds[mode])


@reads("OneHot")
def _one_hot(e: Emitter, n: Node) -> Results:
    depth = n.integers(1)
    assert depth is not None
    return e.call(functions.one_hot, n.operand(0), depth[0], n.operand(2), n.attribute("axis", -1))
