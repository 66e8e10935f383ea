"""Operators that make many numbers one: sums, means, extremes, and choosing among them."""

from __future__ import annotations

from typing import Any

import torch

from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.functions import cumulative_sum, top
from netwright.core.files.onnx_import.registry import READERS, Node, reads
from netwright.core.files.onnx_import.values import Const, Results, Value

_DIRECT: dict[str, Any] = {
    "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin,
    "ReduceLogSumExp": torch.logsumexp,
}  # fmt: skip


def _reduce(e: Emitter, n: Node) -> Results:
    x, keep = n.operand(0), bool(n.attribute("keepdims", 1))
    axes = n.numbers(1, "axes")
    if not axes:
        if n.attribute("noop_with_empty_axes", 0):
            return x
        axes = list(range(x.dim))
    if not axes:  # a scalar
        return x
    if n.op in _DIRECT:
        made = e.call(_DIRECT[n.op], x, axes, keep)
    elif n.op == "ReduceProd":
        made = x
        for axis in sorted((a % x.dim for a in axes), reverse=True):
            made = e.call(torch.prod, made, axis, keep)
    elif n.op in ("ReduceL1", "ReduceL2"):
        made = e.call(torch.linalg.vector_norm, x, 1 if n.op == "ReduceL1" else 2, axes, keep)
    elif n.op == "ReduceSumSquare":
        made = e.call(torch.sum, e.call(torch.mul, x, x), axes, keep)
    else:
        made = e.call(torch.log, e.call(torch.sum, x, axes, keep))
    before, after = _type(x), _type(made)
    return made if before == after else e.method("to", made, before)


def _type(x: Any) -> torch.dtype:
    return x.probes[0].dtype if isinstance(x, Value) else x.tensor.dtype


READERS.update(
    dict.fromkeys(
        (*_DIRECT, "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"), _reduce
    )
)


@reads("ArgMax", "ArgMin")
def _argument(e: Emitter, n: Node) -> Results:
    if n.attribute("select_last_index", 0):
        raise n.refuse("with select_last_index")
    function = torch.argmax if n.op == "ArgMax" else torch.argmin
    return e.call(function, n.operand(0), n.attribute("axis", 0), bool(n.attribute("keepdims", 1)))


@reads("TopK")
def _top(e: Emitter, n: Node) -> Results:
    count = n.integers(1) or [n.attribute("k")]
    return tuple(
        e.call(top, n.operand(0), count[0], n.attribute("axis", -1), bool(n.attribute("largest", 1)))
    )


@reads("CumSum")
def _cumulative(e: Emitter, n: Node) -> Results:
    axis = n.integers(1)
    assert axis is not None
    exclusive, reverse = bool(n.attribute("exclusive", 0)), bool(n.attribute("reverse", 0))
    return e.call(cumulative_sum, n.operand(0), axis[0], exclusive, reverse)


@reads("Size")
def _size(e: Emitter, n: Node) -> Results:
    import numpy as np

    total: Any = 1
    for size in e.sizes(n.operand(0)):
        total = total * size
    return Const(torch.tensor(total)) if isinstance(total, int) else np.array(total, dtype=object)
