"""LSTM, GRU and plain recurrent layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.files.onnx_import.cells import ResetFirstGRU
from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.registry import Node, reads
from netwright.core.files.onnx_import.values import Const, Results, Value

# the order of the gates: torch's gate k stands at this place in ONNX's tensors
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@reads("LSTM", "GRU", "RNN")
def _recurrent(e: Emitter, n: Node) -> Results:
    x = n.operand(0)
    _check(n, x)
    layer = _layer(n)
    batch_axis = 0 if n.attribute("layout", 0) else 1
    layer.batch_first = batch_axis == 0
    direction = n.attribute("direction", "forward")
    if direction == "reverse":
        x = e.call(torch.flip, x, [1 - batch_axis])
    state = _state(e, n, x, batch_axis)
    made = e.module(layer, x, *([state] if state is not None else []))
    output, last = made
    if direction == "reverse":
        output = e.call(torch.flip, output, [1 - batch_axis])
    hidden = list(last) if isinstance(last, list) else [last]
    if n.used[0] if n.used else False:
        output = _directions(e, output, layer, batch_axis)
    if batch_axis == 0:
        hidden = [e.method("transpose", h, 0, 1) for h in hidden]
    return (output, *hidden)


def _check(n: Node, x: Any) -> None:
    wanted = _ACTIVATIONS[n.op]
    given = n.attribute("activations")
    if n.op == "RNN" and given and set(given) == {"Relu"}:
        given = None
    if given and [g.lower() for g in given] != [w.lower() for w in wanted * (len(given) // len(wanted))]:
        raise n.refuse(f"activations {', '.join(given)}", ", ".join(wanted))
    if n.attribute("clip") or n.attribute("input_forget", 0):
        raise n.refuse("with clip or input_forget")
    peepholes = n.constant(7) if n.op == "LSTM" else None
    if peepholes is not None and bool(peepholes.any()):
        raise n.refuse("with peepholes")
    if n.has(4):
        lengths, steps = n.constant(4), x.shape[1 if n.attribute("layout", 0) else 0]
        if lengths is None or bool((lengths != steps).any()):
            raise n.refuse("with sequences of different lengths")


def _layer(n: Node) -> Any:
    """The layer with the file's weights, gates in torch's order."""
    weight, recurrent = n.constant(1), n.constant(2)
    assert weight is not None
    assert recurrent is not None
    directions, hidden = weight.shape[0], recurrent.shape[2]
    bias = n.constant(3)
    after = bool(n.attribute("linear_before_reset", 0))
    kind: Any = {"LSTM": nn.LSTM, "GRU": nn.GRU if after else ResetFirstGRU, "RNN": nn.RNN}[n.op]
    extra = {"nonlinearity": "relu"} if "Relu" in (n.attribute("activations") or []) else {}
    layer = kind(weight.shape[2], hidden, bias=bias is not None, bidirectional=directions == 2, **extra)
    layer = layer.to(weight.dtype)
    for d, suffix in zip(range(directions), ("", "_reverse"), strict=False):
        parts = {"weight_ih": weight[d], "weight_hh": recurrent[d]}
        if bias is not None:
            parts["bias_ih"], parts["bias_hh"] = bias[d].chunk(2)
        for name, tensor in parts.items():
            with torch.no_grad():
                getattr(layer, f"{name}_l0{suffix}").copy_(_reorder(tensor, _ORDER[n.op]))
    return layer


def _reorder(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    gates = tensor.chunk(len(order))
    return torch.cat([gates[i] for i in order])


def _state(e: Emitter, n: Node, x: Any, batch_axis: int) -> Any:
    """The initial state as torch wants it, or None where it is zero."""
    given: list[Any] = [n.inputs[i] if n.has(i) else None for i in ((5, 6) if n.op == "LSTM" else (5,))]
    if all(v is None or _is_zero(v) for v in given):
        return None
    present = next(v for v in given if v is not None)  # an LSTM may be given one of its two
    given = [e.call(torch.zeros_like, present) if v is None else v for v in given]
    if batch_axis == 0:
        given = [e.method("transpose", v, 0, 1) for v in given]
    if e.batch == 1:  # a state for the one example of a file that fixes the batch serves every example
        batch = e.size(x, batch_axis)
        given = [
            v if isinstance(v, Value) and v.varies(1) else e.method("expand", v, [-1, batch, -1])
            for v in given
        ]
    return tuple(given) if n.op == "LSTM" else given[0]


def _is_zero(value: Any) -> bool:
    if isinstance(value, Const):
        return not bool(value.tensor.any())
    return isinstance(value, Value) and value.zeros


def _directions(e: Emitter, output: Value, layer: Any, batch_axis: int) -> Any:
    """(T, B, D * H) as ONNX has it: (T, D, B, H), or (B, T, D, H) with the batch first."""
    if not layer.bidirectional:
        return e.method("unsqueeze", output, 2 if batch_axis == 0 else 1)
    first, second = (e.size(output, i) for i in (0, 1))
    split = e.method("reshape", output, [first, second, 2, layer.hidden_size])
    return split if batch_axis == 0 else e.method("permute", split, [0, 2, 1, 3])
