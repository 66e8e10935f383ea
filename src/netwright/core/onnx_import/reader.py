"""From an ONNX file to a network: which sizes vary, every node in order, and the proof that it is the same."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx

from netwright.core.errors import BadInput, NetwrightError, UnsupportedOperator
from netwright.core.onnx_import import (  # noqa: F401  (each fills its part of the tables)
    elementwise,
    layers,
    linear,
    quantised,
    recurrent,
    reductions,
    resize,
    shapes,
    sizes,
)  # fmt: skip
from netwright.core.onnx_import.emitter import Emitter
from netwright.core.onnx_import.file import parse
from netwright.core.onnx_import.proof import prove
from netwright.core.onnx_import.registry import READERS, SIZES, Node, attribute_value, to_torch, torch_type
from netwright.core.onnx_import.values import Const, Operand, Value
from netwright.core.quiet import quiet

_PROBES = (3, 5)
_GUESSES = (64, 32, 16, 224, 8, 128)
_KEEP_ZERO = {
    "Expand", "Slice", "Gather", "Transpose", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Split", "Concat",
    "Cast", "Tile",
}  # fmt: skip
_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Input:
    """An input of the file: name, type, and its sizes; a size that may vary is a name, or None without one."""

    name: str
    dtype: torch.dtype
    dims: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Plan:
    """How to read a file.

    shapes: for each input, its sizes; those that are the batch stand as None.
    free: whether the network takes any batch; batch: the size that the file fixes, if it fixes one.
    static: whether no other size varies.
    """

    shapes: tuple[tuple[int | None, ...], ...]
    free: bool
    batch: int | None
    static: bool

    def at(self, batch: int) -> list[tuple[int, ...]]:
        return [tuple(batch if d is None else d for d in shape) for shape in self.shapes]


def read_onnx(path: str | Path, example: tuple[Tensor, ...] | None = None) -> fx.GraphModule:
    """A trainable module in evaluation mode, with the outputs of ONNX Runtime to 1e-3 of the largest (checked).

    Floating tensors of the file become parameters (convolutions, linear, recurrent and normalising layers as
    torch's own), other constants buffers. The batch is free where the file's own operators allow it, even if
    the file fixes it. example: inputs, for files whose other sizes vary.
    `network.meta["netwright"]` tells the inputs' names and shapes and the file's metadata.
    Raises UnsupportedOperator, naming operator and node; BadInput for what is no readable ONNX network.
    """
    path = Path(path)
    model = parse(path)
    try:
        _known_operators(model)
        return _read(model, path, example)
    except NetwrightError as error:
        if not str(error).startswith(str(path)):
            error.args = (f"{path}: {error}",)
        raise


def _read(model: onnx.ModelProto, path: Path, example: tuple[Tensor, ...] | None) -> fx.GraphModule:
    held = {t.name for t in model.graph.initializer}
    inputs = [_input(v) for v in model.graph.input if v.name not in held]
    if not inputs:
        raise BadInput("this network takes no input")
    failure: Exception | None = None
    for plan in _plans(inputs, example):
        try:
            with quiet():
                network = _convert(model, inputs, plan)
            prove(network, path, inputs, plan)
        except UnsupportedOperator:
            raise
        except Exception as error:
            # the plan that fixes everything as the file does tells best what is wrong
            failure = error
            continue
        network.meta["netwright"] = {
            "inputs": [(i.name, s[1:]) for i, s in zip(inputs, _shapes(inputs), strict=True)],
            "batch": None if plan.free else plan.batch,
            **{
                p.key.removeprefix("netwright."): p.value
                for p in model.metadata_props
                if "netwright." in p.key
            },
        }
        return network
    if isinstance(failure, NetwrightError):
        raise failure
    raise BadInput(f"this network cannot be read: {str(failure).strip().partition(chr(10))[0]}") from failure


def _known_operators(model: onnx.ModelProto) -> None:
    for index, node in enumerate(model.graph.node):
        foreign = node.domain not in _DOMAINS
        if foreign or node.op_type not in READERS:
            operator = f"{node.domain}.{node.op_type}" if foreign else node.op_type
            raise UnsupportedOperator(operator, node.name or f"{node.op_type}_{index}", "Netwright")


def _input(value: onnx.ValueInfoProto) -> Input:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise BadInput(f"input '{value.name}' is no tensor of known rank")
    dims = tuple(d.dim_value if d.dim_value > 0 else d.dim_param or None for d in kind.shape.dim)
    return Input(value.name, torch_type(kind.elem_type), dims)


def _shapes(inputs: list[Input]) -> list[tuple[int | None, ...]]:
    return [tuple(d if isinstance(d, int) else None for d in i.dims) for i in inputs]


def _plans(inputs: list[Input], example: tuple[Tensor, ...] | None) -> list[Plan]:
    """Any batch first, then the file's own; sizes that vary otherwise from the example, or guessed."""
    if example is not None and (
        len(example) != len(inputs)
        or any(t.dim() != len(i.dims) for t, i in zip(example, inputs, strict=True))
    ):
        example = None
    named = [d for i in inputs for d in i.dims if isinstance(d, str)]
    batch: Any = next((d for d in named if "batch" in d.lower()), None)
    first = [i.dims[0] for i in inputs if i.dims]
    if batch is None:
        batch = next((d for d in first if not isinstance(d, int)), first[0] if first else 1)
    varying = [d for i in inputs for k, d in enumerate(i.dims) if not _is_batch(d, k, batch)]
    static = all(isinstance(d, int) for d in varying)
    plans = []
    for guess in (0,) if static or example is not None else _GUESSES:
        for free in (True, False):
            if free and not first:
                continue
            shapes = tuple(
                tuple(
                    None
                    if free and _is_batch(d, k, batch)
                    else d if isinstance(d, int)
                    else (1 if _is_batch(d, k, batch) else example[i].shape[k] if example is not None else guess)
                    for k, d in enumerate(entry.dims)
                )
                for i, entry in enumerate(inputs)
            )  # fmt: skip
            plans.append(Plan(shapes, free, batch if isinstance(batch, int) else None, static))
    return plans


def _is_batch(dim: int | str | None, axis: int, batch: Any) -> bool:
    """A size is the batch if it has its name anywhere, or its number (or no name) as the first of an input."""
    return dim == batch and (isinstance(dim, str) or axis == 0)


def _convert(model: onnx.ModelProto, inputs: list[Input], plan: Plan) -> fx.GraphModule:
    factor = plan.batch or 1
    probes = tuple(p * factor for p in _PROBES) if plan.free else (0, 0)
    e = Emitter(plan.static, plan.batch if plan.free else None, probes)
    env: dict[str, Operand] = {"": None}
    # as some exporters write it, weights are Constant nodes
    weights_in_nodes = not any(t.dims and t.data_type in (1, 10, 11, 16) for t in model.graph.initializer)
    for tensor in model.graph.initializer:
        env[tensor.name] = Const(to_torch(tensor), tensor.name, weight=True)
    at = [plan.at(p) for p in probes]
    for k, entry in enumerate(inputs):
        env[entry.name] = e.input(entry.name, tuple(shapes[k] for shapes in at), entry.dtype)
    opset = max((o.version for o in model.opset_import if o.domain in _DOMAINS), default=1)
    used = Counter(name for node in model.graph.node for name in node.input)
    used.update(v.name for v in model.graph.output)
    for index, proto in enumerate(model.graph.node):
        name = proto.name or f"{proto.op_type}_{index}"
        attributes = {a.name: attribute_value(a) for a in proto.attribute}
        node = Node(
            proto.op_type,
            name,
            [env[i] for i in proto.input],
            attributes,
            opset,
            [used[o] for o in proto.output],
        )
        e.scope = _scope(name)
        results = _results(e, node)
        for output, result in zip(proto.output, results, strict=False):
            if isinstance(result, Const) and not result.name:
                result.name = output
                result.weight |= (
                    proto.op_type == "Constant" and weights_in_nodes and result.tensor.numel() > 1
                )
            env[output] = result
    return _finish(e, [env[v.name] for v in model.graph.output])


def _results(e: Emitter, node: Node) -> tuple[Any, ...]:
    """A node's outputs."""
    made: Any = None
    if any(isinstance(v, np.ndarray) for v in node.inputs) and node.op in SIZES:
        if all(isinstance(v, (np.ndarray, Const)) or v is None for v in node.inputs):
            made = SIZES[node.op](node)
    try:
        made = READERS[node.op](e, node) if made is None else made
    except NetwrightError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BadInput(f"node '{node.name}' ({node.op}) does not fit its inputs: {reason}") from error
    results = tuple(made) if isinstance(made, (tuple, list)) else (made,)
    sources = [v for v in node.inputs if isinstance(v, (Value, Const))]
    checked = sources if node.op == "Concat" else sources[:1]
    if node.op in _KEEP_ZERO and checked and all(_is_zero(v) for v in checked):
        for result in results:
            if isinstance(result, Value):
                result.zeros = True
    return results


def _is_zero(value: Value | Const) -> bool:
    if isinstance(value, Value):
        return value.zeros
    return value.tensor.is_floating_point() and not bool(value.tensor.any())


def _scope(name: str) -> str:
    """A node's name as a place in the network: '/layer1/conv/Conv' gives 'layer1.conv'."""
    parts = [p for p in re.split(r"[/.]", name) if p]
    if name.startswith("/") and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)


def _finish(e: Emitter, outputs: list[Operand]) -> fx.GraphModule:
    values = [e.tensor(v) if isinstance(v, np.ndarray) else v for v in outputs]
    nodes = [e.node(v) for v in values]
    e.graph.output(nodes[0] if len(nodes) == 1 else tuple(nodes))
    network = fx.GraphModule(e.root, e.graph, "Network")
    network.graph.eliminate_dead_code()
    return fx.GraphModule(network, network.graph, "Network").eval()
