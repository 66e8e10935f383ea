"""Arithmetic on sizes, as exporters write it: Shape, Gather, Concat, Mul and so on before a Reshape.

Sizes are numpy arrays of objects, so numpy does the work, and `Size` writes the steps that remain.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.functions import ceil_size, floor_size
from netwright.core.files.onnx_import.registry import SIZES, Node, reads, torch_type
from netwright.core.files.onnx_import.values import Const, Operand, Results, Size


@reads("Shape")
def _shape(e: Emitter, n: Node) -> Results:
    sizes = e.sizes(n.operand(0))[n.attribute("start", 0) : n.attribute("end")]
    return objects(sizes)


def objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def as_sizes(operand: Operand) -> np.ndarray:
    """A constant or sizes as an array of objects."""
    if isinstance(operand, np.ndarray):
        return operand
    assert isinstance(operand, Const)
    return np.array(operand.tensor.tolist(), dtype=object)


def settled(array: Any) -> Results:
    """An array without any `Size` left is a constant."""
    array = np.asarray(array, dtype=object)
    if any(isinstance(v, Size) for v in array.ravel()):
        return array
    if array.size and all(isinstance(v, bool | np.bool_) for v in array.ravel()):
        return Const(torch.tensor(array.tolist(), dtype=torch.bool))
    return Const(torch.tensor(array.tolist(), dtype=torch.int64 if not _floating(array) else torch.float32))


def _floating(array: np.ndarray) -> bool:
    return any(
        isinstance(p, float) for v in array.ravel() for p in (v.probes if isinstance(v, Size) else (v,))
    )


def _with(function: Callable[..., Any]) -> Callable[[Node], Results]:
    def compute(n: Node) -> Results:
        return settled(function(*(as_sizes(v) for v in n.inputs)))

    return compute


def _each(function: Callable[..., Any]) -> Callable[[Node], Results]:
    return _with(np.frompyfunc(function, 2, 1))


def _div(n: Node) -> Results:
    a, b = (as_sizes(v) for v in n.inputs)
    function = operator.truediv if _floating(a) or _floating(b) else operator.floordiv
    return settled(np.frompyfunc(function, 2, 1)(a, b))


def _gather(n: Node) -> Results:
    data, index = as_sizes(n.inputs[0]), n.constant(1)
    assert index is not None
    return settled(np.take(data, index.numpy(), axis=n.attribute("axis", 0)))


def _slice(n: Node) -> Results:
    data = as_sizes(n.inputs[0])
    starts, ends = n.numbers(1, "starts"), n.numbers(2, "ends")
    axes, steps = n.numbers(3, "axes"), n.integers(4)
    assert starts is not None
    assert ends is not None
    window = [slice(None)] * data.ndim
    for i, axis in enumerate(axes or range(len(starts))):
        window[axis] = slice(starts[i], ends[i], steps[i] if steps else 1)
    return settled(data[tuple(window)])


def _axes(n: Node) -> list[int] | None:
    return n.numbers(1, "axes")


def _unsqueeze(n: Node) -> Results:
    return settled(np.expand_dims(as_sizes(n.inputs[0]), tuple(_axes(n) or [0])))


def _squeeze(n: Node) -> Results:
    axes = _axes(n)
    return settled(np.squeeze(as_sizes(n.inputs[0]), None if axes is None else tuple(axes)))


def _cast(n: Node) -> Results:
    kind = torch_type(n.attribute("to"))
    convert = float if kind.is_floating_point else int
    change = lambda v: v if isinstance(v, Size) else convert(v)
    data = as_sizes(n.inputs[0])
    if not kind.is_floating_point and _floating(data):
        change = lambda v: math.floor(v) if not isinstance(v, Size) else _whole(v)
    return settled(np.frompyfunc(change, 1, 1)(data))


def _whole(value: Size) -> Any:
    return value.step(floor_size, value) if isinstance(value.probes[0], float) else value


def _round(up: bool) -> Callable[[Node], Results]:
    def one(v: Any) -> Any:
        function = ceil_size if up else floor_size
        return v.step(function, v) if isinstance(v, Size) else function(v)

    return lambda n: settled(np.frompyfunc(one, 1, 1)(as_sizes(n.inputs[0])))


def _extreme(function: Callable[..., Any], symbolic: Callable[..., Any]) -> Callable[[Node], Results]:
    def pick(a: Any, b: Any) -> Any:
        owner = a if isinstance(a, Size) else b if isinstance(b, Size) else None
        return function(a, b) if owner is None else owner.step(symbolic, a, b)

    return _each(pick)


def _range(n: Node) -> Results:
    start, stop, step = (as_sizes(v).item() for v in n.inputs)
    if any(isinstance(v, Size) for v in (start, stop, step)):
        return None
    return Const(torch.arange(start, stop, step))


def _reshape(n: Node) -> Results:
    shape = n.integers(1)
    return settled(as_sizes(n.inputs[0]).reshape(shape))


SIZES.update(
    {
        "Shape": lambda n: Const(torch.tensor(as_sizes(n.inputs[0]).shape)),
        "Size": lambda n: Const(torch.tensor(as_sizes(n.inputs[0]).size)),
        "Identity": lambda n: n.inputs[0], "Cast": _cast, "Gather": _gather, "Slice": _slice,
        "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Div": _div, "Range": _range, "Reshape": _reshape,
        "Concat": lambda n: settled(np.concatenate([as_sizes(v) for v in n.inputs], n.attribute("axis"))),
        "Floor": _round(False), "Ceil": _round(True),
        "Add": _each(operator.add), "Sub": _each(operator.sub), "Mul": _each(operator.mul),
        "Mod": _each(operator.mod), "Equal": _each(operator.eq), "Less": _each(operator.lt),
        "Greater": _each(operator.gt), "LessOrEqual": _each(operator.le), "GreaterOrEqual": _each(operator.ge),
        "And": _each(lambda a, b: bool(a) and bool(b)), "Or": _each(lambda a, b: bool(a) or bool(b)),
        "Not": _with(np.frompyfunc(operator.not_, 1, 1)), "Neg": _with(np.frompyfunc(operator.neg, 1, 1)),
        "Min": _extreme(min, torch.sym_min), "Max": _extreme(max, torch.sym_max),
        "Where": _with(lambda c, a, b: np.where(c.astype(bool), a, b)),
        "ReduceProd": lambda n: settled(_product(n)),
    }
)  # fmt: skip


def _product(n: Node) -> np.ndarray:
    total: Any = 1
    for value in as_sizes(n.inputs[0]).ravel():
        total = value * total
    return np.array([total] if n.attribute("keepdims", 1) else total, dtype=object)
