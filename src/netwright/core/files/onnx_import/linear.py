"""Products of matrices, and normalisation."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.functions import response_norm, unit_length
from netwright.core.files.onnx_import.layers import layer_name
from netwright.core.files.onnx_import.registry import Node, reads
from netwright.core.files.onnx_import.values import Const, Results, Value

_BATCH_NORMS: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS: dict[int, Any] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def _linear(e: Emitter, weight: Const, bias: Const | None, transposed: bool) -> nn.Linear:
    """A layer from a matrix (I, O), or (O, I) if transposed."""
    outputs, inputs = weight.shape if transposed else weight.shape[::-1]
    layer = nn.Linear(inputs, outputs, bias is not None, device="meta")
    layer.weight = e.parameter(weight, None if transposed else (1, 0))
    if bias is not None:
        layer.bias = e.parameter(bias)
    return layer


@reads("Gemm")
def _gemm(e: Emitter, n: Node) -> Results:
    a, b, c = n.operand(0), n.operand(1), n.operand(2) if n.has(2) else None
    alpha, beta = n.attribute("alpha", 1.0), n.attribute("beta", 1.0)
    if n.attribute("transA", 0):
        a = a.permute((1, 0)) if isinstance(a, Const) else e.method("transpose", a, 0, 1)
    if (
        isinstance(b, Const)
        and b.tensor.is_floating_point()
        and alpha == beta == 1.0
        and isinstance(a, Value)
    ):
        outputs = b.shape[0 if n.attribute("transB", 0) else 1]
        row = c if c is None or c.shape == (outputs,) else _row(c, outputs)
        if row is None or isinstance(row, Const):
            layer = _linear(e, b, row, bool(n.attribute("transB", 0)))
            made = e.module(layer, a, name=layer_name(b))
            return made if c is None or row is not None else e.call(operator.add, made, c)
    if n.attribute("transB", 0):
        b = b.permute((1, 0)) if isinstance(b, Const) else e.method("transpose", b, 0, 1)
    made = e.call(torch.matmul, a, b)
    made = made if alpha == 1.0 else e.call(operator.mul, made, alpha)
    if c is None:
        return made
    return e.call(operator.add, made, c if beta == 1.0 else e.call(operator.mul, c, beta))


def _row(c: Any, outputs: int) -> Const | None:
    """One row (1, O) as a bias; anything else is added afterwards."""
    if isinstance(c, Const) and c.shape == (1, outputs):
        return Const(c.tensor.reshape(-1), c.name and f"{c.name}.row", c.weight, path=c.path)
    return None


@reads("MatMul")
def _matmul(e: Emitter, n: Node) -> Results:
    a, b = n.operand(0), n.operand(1)
    if isinstance(b, Const) and b.dim == 2 and b.tensor.is_floating_point() and isinstance(a, Value):
        made = e.module(_linear(e, b, None, False), a, name=layer_name(b) or n.hint)
        made.node.meta["single"] = n.used == [1]  # then an Add may become its bias
        return made
    return e.call(torch.matmul, a, b)


@reads("Einsum")
def _einsum(e: Emitter, n: Node) -> Results:
    return e.call(torch.einsum, n.attribute("equation").replace(" ", ""), *n.inputs)


@reads("BatchNormalization")
def _batch_norm(e: Emitter, n: Node) -> Results:
    n.only_first_output()
    x, eps, momentum = n.operand(0), n.attribute("epsilon", 1e-5), n.attribute("momentum", 0.9)
    if n.attribute("training_mode", 0) or n.attribute("spatial", 1) != 1:
        raise n.refuse("in training mode or not spatial")
    scale, bias, mean, var = (n.operand(i) for i in range(1, 5))
    if not all(isinstance(v, Const) for v in (scale, bias, mean, var)) or x.dim not in _BATCH_NORMS:
        shape = [1, -1] + [1] * (x.dim - 2)
        mean, var, scale, bias = (e.method("reshape", v, shape) for v in (mean, var, scale, bias))
        spread = e.call(torch.sqrt, e.call(operator.add, var, eps))
        made = e.call(operator.truediv, e.call(operator.sub, x, mean), spread)
        return e.call(operator.add, e.call(operator.mul, made, scale), bias)
    layer = _BATCH_NORMS[x.dim](scale.shape[0], eps, 1 - momentum)
    layer.weight, layer.bias = e.parameter(scale), e.parameter(bias)
    layer.running_mean, layer.running_var = mean.tensor.clone(), var.tensor.clone()
    return e.module(layer, x, name=layer_name(scale))


@reads("InstanceNormalization")
def _instance_norm(e: Emitter, n: Node) -> Results:
    x, scale, bias, eps = n.operand(0), n.operand(1), n.operand(2), n.attribute("epsilon", 1e-5)
    if isinstance(scale, Const) and isinstance(bias, Const) and x.dim in _INSTANCE_NORMS:
        layer = _INSTANCE_NORMS[x.dim](scale.shape[0], eps, affine=True)
        layer.weight, layer.bias = e.parameter(scale), e.parameter(bias)
        return e.module(layer, x, name=layer_name(scale))
    return e.call(F.instance_norm, x, weight=scale, bias=bias, eps=eps)


@reads("GroupNormalization")
def _group_norm(e: Emitter, n: Node) -> Results:
    x, scale, bias, groups = n.operand(0), n.operand(1), n.operand(2), n.attribute("num_groups")
    eps, channels = n.attribute("epsilon", 1e-5), x.shape[1]
    if scale.shape[0] != channels:  # operator set 18 has one number per group
        scale, bias = (e.call(torch.repeat_interleave, v, channels // groups) for v in (scale, bias))
    if isinstance(scale, Const) and isinstance(bias, Const):
        layer = nn.GroupNorm(groups, channels, eps)
        layer.weight, layer.bias = e.parameter(scale), e.parameter(bias)
        return e.module(layer, x, name=layer_name(scale))
    return e.call(F.group_norm, x, groups, scale, bias, eps)


@reads("LayerNormalization", "RMSNormalization")
def _layer_norm(e: Emitter, n: Node) -> Results:
    n.only_first_output()
    x, scale, bias = n.operand(0), n.operand(1), n.operand(2) if n.has(2) else None
    axis, eps = n.attribute("axis", -1) % x.dim, n.attribute("epsilon", 1e-5)
    shape = list(x.shape[axis:])
    known = isinstance(scale, Const) and list(scale.shape) == shape
    if known and n.op == "RMSNormalization":
        root = nn.RMSNorm(shape, eps)
        root.weight = e.parameter(scale)
        return e.module(root, x, name=layer_name(scale))
    if known and (bias is None or isinstance(bias, Const)) and n.op == "LayerNormalization":
        layer = nn.LayerNorm(shape, eps, bias=bias is not None)
        layer.weight = e.parameter(scale)
        if bias is not None:
            layer.bias = e.parameter(bias)
        return e.module(layer, x, name=layer_name(scale))
    plain = F.layer_norm if n.op == "LayerNormalization" else F.rms_norm
    made = e.call(operator.mul, e.call(plain, x, e.sizes(x)[axis:], eps=eps), scale)
    return made if bias is None else e.call(operator.add, made, bias)


@reads("LRN")
def _lrn(e: Emitter, n: Node) -> Results:
    alpha, beta, bias = n.attribute("alpha", 1e-4), n.attribute("beta", 0.75), n.attribute("bias", 1.0)
    return e.call(response_norm, n.operand(0), n.attribute("size"), alpha, beta, bias)


@reads("LpNormalization")
def _lp_norm(e: Emitter, n: Node) -> Results:
    order, axis = n.attribute("p", 2), n.attribute("axis", -1)
    return e.call(unit_length, n.operand(0), order, axis)


@reads("MeanVarianceNormalization")
def _mean_variance(e: Emitter, n: Node) -> Results:
    axes = n.attribute("axes", [0, 2, 3])
    centred = e.call(operator.sub, n.operand(0), e.call(torch.mean, n.operand(0), axes, True))
    spread = e.call(torch.sqrt, e.call(torch.mean, e.call(operator.mul, centred, centred), axes, True))
    return e.call(operator.truediv, centred, e.call(operator.add, spread, 1e-9))
