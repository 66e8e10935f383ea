"""Operators that work number by number: arithmetic, comparison, activations."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import nn

from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.registry import READERS, Node, reads, scalar, torch_type
from netwright.core.files.onnx_import.values import Const, Results, Value

_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs, "Neg": torch.neg, "Exp": torch.exp, "Log": torch.log, "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal, "Erf": torch.erf, "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan,
    "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan, "Sinh": torch.sinh, "Cosh": torch.cosh,
    "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh, "Sign": torch.sign,
    "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Not": torch.logical_not,
    "IsNaN": torch.isnan, "Det": torch.det, "BitwiseNot": torch.bitwise_not,
}  # fmt: skip
_BINARY: dict[str, Callable[..., Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Equal": torch.eq, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le, "And": torch.logical_and,
    "Or": torch.logical_or, "Xor": torch.logical_xor, "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip
_COMMUTE: dict[str, Callable[..., Any]] = {"Add": operator.add, "Mul": operator.mul, "Equal": torch.eq}
_LAYERS: dict[str, Callable[[Node], nn.Module]] = {
    "Relu": lambda n: nn.ReLU(),
    "Sigmoid": lambda n: nn.Sigmoid(),
    "Tanh": lambda n: nn.Tanh(),
    "Softplus": lambda n: nn.Softplus(threshold=40.0),  # x itself beyond: exp(x) overflows at 89
    "Softsign": lambda n: nn.Softsign(),
    "HardSwish": lambda n: nn.Hardswish(),
    "Mish": lambda n: nn.Mish(),
    "LeakyRelu": lambda n: nn.LeakyReLU(n.attribute("alpha", 0.01)),
    "Elu": lambda n: nn.ELU(n.attribute("alpha", 1.0)),
    "Celu": lambda n: nn.CELU(n.attribute("alpha", 1.0)),
    "Gelu": lambda n: nn.GELU(n.attribute("approximate", "none")),
}


def _unary(e: Emitter, n: Node) -> Results:
    return e.call(_UNARY[n.op], n.operand(0))


def _binary(e: Emitter, n: Node) -> Results:
    a, b = n.operand(0), n.operand(1)
    if n.op == "Add" and (biased := _bias(e, n, a, b) or _bias(e, n, b, a)) is not None:
        return biased
    left = scalar(a, b)
    if left is not a:
        if n.op in _COMMUTE:
            return e.call(_COMMUTE[n.op], b, left)
        if n.op == "Sub":
            return e.call(operator.sub, left, b)
        return e.call(_BINARY[n.op], a, b)
    return e.call(_BINARY[n.op], a, scalar(b, a))


def _bias(e: Emitter, n: Node, made: Any, bias: Any) -> Value | None:
    """x @ W + b as one layer, where nothing else reads x @ W; the layer was made by the MatMul."""
    if not (isinstance(made, Value) and isinstance(bias, Const) and made.node.op == "call_module"):
        return None
    layer = e.root.get_submodule(str(made.node.target))
    fits = type(layer) is nn.Linear and layer.bias is None and made.node.meta.get("single")
    if not fits or bias.tensor.numel() != layer.out_features or bias.shape[-1:] != (layer.out_features,):
        return None
    if bias.dim > made.dim:
        return None
    layer.bias = e.parameter(bias) if bias.dim == 1 else nn.Parameter(bias.tensor.reshape(-1).clone())
    made.node.meta["single"] = False
    return made


def _layer(e: Emitter, n: Node) -> Results:
    return e.module(_LAYERS[n.op](n), n.operand(0))


for _table, _reader in ((_UNARY, _unary), (_BINARY, _binary), (_LAYERS, _layer)):
    READERS.update(dict.fromkeys(_table, _reader))


@reads("Div")
def _div(e: Emitter, n: Node) -> Results:
    a, b = n.operand(0), n.operand(1)
    kind = (
        a.tensor.dtype if isinstance(a, Const) else a.probes[0].dtype if isinstance(a, Value) else torch.int64
    )
    if kind.is_floating_point:
        return e.call(operator.truediv, a, scalar(b, a))
    return e.call(torch.div, a, b, rounding_mode="trunc")


@reads("Mod")
def _mod(e: Emitter, n: Node) -> Results:
    return e.call(torch.fmod if n.attribute("fmod", 0) else torch.remainder, n.operand(0), n.operand(1))


@reads("Pow")
def _pow(e: Emitter, n: Node) -> Results:
    base, exponent = n.operand(0), n.operand(1)
    if isinstance(exponent, Const) and exponent.tensor.numel() == 1:
        value = exponent.tensor.item()
        exponent = int(value) if float(value).is_integer() else scalar(exponent, base)
        if value == 1:
            return e.call(torch.clone, base) if isinstance(base, Const) else base
    made = e.call(torch.pow, base, exponent)
    kinds = [v.tensor.dtype if isinstance(v, Const) else v.probes[0].dtype for v in (base, made)]
    return made if kinds[0] == kinds[1] else e.method("to", made, kinds[0])


@reads("Max", "Min", "Sum", "Mean")
def _variadic(e: Emitter, n: Node) -> Results:
    step: Any = {"Max": torch.maximum, "Min": torch.minimum}.get(n.op, operator.add)
    made = reduce(lambda a, b: e.call(step, a, b), n.inputs)
    return e.call(operator.truediv, made, len(n.inputs)) if n.op == "Mean" else made


@reads("Clip")
def _clip(e: Emitter, n: Node) -> Results:
    low = scalar(n.inputs[1]) if n.has(1) else n.attribute("min")
    high = scalar(n.inputs[2]) if n.has(2) else n.attribute("max")
    low, high = (
        v.tensor.item() if isinstance(v, Const) and v.tensor.numel() == 1 else v for v in (low, high)
    )
    if low is None and high is None:
        return n.operand(0)
    if (low, high) == (0, 6):
        return e.module(nn.ReLU6(), n.operand(0))
    if isinstance(low, float | int) and isinstance(high, float | int) and low > high:
        return e.call(torch.full_like, n.operand(0), high)
    return e.call(torch.clamp, n.operand(0), min=low, max=high)


@reads("PRelu")
def _prelu(e: Emitter, n: Node) -> Results:
    x, slope = n.operand(0), n.operand(1)
    if isinstance(slope, Const) and isinstance(x, Value) and x.dim > 1 and slope.tensor.is_floating_point():
        channel = slope.dim == x.dim - 1 and slope.tensor.numel() == slope.shape[0] == x.shape[1]
        if slope.tensor.numel() == 1 or channel:
            layer = nn.PReLU(slope.tensor.numel())
            layer.weight = (
                e.parameter(slope) if slope.dim == 1 else nn.Parameter(slope.tensor.reshape(-1).clone())
            )
            return e.module(layer, x)
    negative = e.call(operator.mul, e.call(torch.clamp, x, max=0), slope)
    return e.call(operator.add, e.call(torch.clamp, x, min=0), negative)


@reads("HardSigmoid")
def _hard_sigmoid(e: Emitter, n: Node) -> Results:
    alpha, beta = n.attribute("alpha", 0.2), n.attribute("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return e.module(nn.Hardsigmoid(), n.operand(0))
    line = e.call(operator.add, e.call(operator.mul, n.operand(0), alpha), beta)
    return e.call(torch.clamp, line, min=0, max=1)


@reads("Selu")
def _selu(e: Emitter, n: Node) -> Results:
    alpha, gamma = n.attribute("alpha", 1.67326319217681884765625), n.attribute("gamma", 1.05070102214813232)
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.050701) < 1e-6:
        return e.module(nn.SELU(), n.operand(0))
    return e.call(operator.mul, e.module(nn.ELU(alpha), n.operand(0)), gamma)


@reads("ThresholdedRelu")
def _thresholded(e: Emitter, n: Node) -> Results:
    return e.module(nn.Threshold(n.attribute("alpha", 1.0), 0.0), n.operand(0))


@reads("Shrink")
def _shrink(e: Emitter, n: Node) -> Results:
    x, bias, limit = n.operand(0), n.attribute("bias", 0.0), n.attribute("lambd", 0.5)
    inner = e.call(torch.where, e.call(torch.lt, x, -limit), e.call(operator.add, x, bias), 0.0)
    made = e.call(torch.where, e.call(torch.gt, x, limit), e.call(operator.sub, x, bias), inner)
    kind = x.probes[0].dtype if isinstance(x, Value) else x.tensor.dtype
    return e.method("to", made, kind)


@reads("Where")
def _where(e: Emitter, n: Node) -> Results:
    return e.call(torch.where, *(n.operand(i) for i in range(3)))


@reads("IsInf")
def _is_inf(e: Emitter, n: Node) -> Results:
    up, down = n.attribute("detect_positive", 1), n.attribute("detect_negative", 1)
    if up and down:
        return e.call(torch.isinf, n.operand(0))
    if not up and not down:
        return e.call(torch.zeros_like, n.operand(0), dtype=torch.bool)
    return e.call(torch.isposinf if up else torch.isneginf, n.operand(0))


@reads("Cast")
def _cast(e: Emitter, n: Node) -> Results:
    return e.method("to", _tensor(e, n.operand(0)), torch_type(n.attribute("to")))


@reads("CastLike")
def _cast_like(e: Emitter, n: Node) -> Results:
    like = n.operand(1)
    return e.method(
        "to", n.operand(0), like.tensor.dtype if isinstance(like, Const) else like.probes[0].dtype
    )


def _tensor(e: Emitter, operand: Any) -> Any:
    return operand if isinstance(operand, (Const, Value)) else e.tensor(operand)


@reads("Softmax", "LogSoftmax")
def _softmax(e: Emitter, n: Node) -> Results:
    from netwright.core.files.onnx_import.functions import softmax_of_rest

    x, log = n.operand(0), n.op == "LogSoftmax"
    axis = n.attribute("axis", -1 if n.opset >= 13 else 1)
    if n.opset < 13 and axis % x.dim != x.dim - 1:
        return e.call(softmax_of_rest, x, axis % x.dim, log)
    return e.module(nn.LogSoftmax(axis) if log else nn.Softmax(axis), x)


@reads("Hardmax")
def _hardmax(e: Emitter, n: Node) -> Results:
    x, axis = n.operand(0), n.attribute("axis", -1)
    if n.opset < 13:
        raise n.refuse("of an operator set before 13")
    best = e.call(torch.argmax, x, axis, True)
    return e.call(torch.scatter, e.call(torch.zeros_like, x), axis, best, 1.0)


@reads("Identity", "Dropout")
def _identity(e: Emitter, n: Node) -> Results:
    if n.op == "Identity" or not isinstance(n.operand(0), Value):
        return n.operand(0)
    n.only_first_output()
    if n.has(2) and bool(n.constant(2)):
        raise n.refuse("in training mode")
    ratio = n.constant(1)
    return e.module(
        nn.Dropout(float(ratio) if ratio is not None else n.attribute("ratio", 0.5)), n.operand(0)
    )


@reads("Constant")
def _constant(e: Emitter, n: Node) -> Results:
    for kind in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if kind in n.attributes:
            return Const(torch.as_tensor(n.attributes[kind]))
    raise n.refuse("of strings or sparse")
