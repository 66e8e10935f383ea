"""From an ONNX file to a network: which sizes vary, every node in order, and the proof that it is the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor, fx

from netwright.core.errors import BadInput, NetwrightError, UnsupportedOperator
from netwright.core.files.facts import describe
from netwright.core.files.onnx_import import (  # noqa: F401  (each fills its part of the tables)
    elementwise,
    indexing,
    layers,
    linear,
    pipelines,
    quantised,
    recurrent,
    reductions,
    resize,
    shapes,
    sizes,
)  # fmt: skip
from netwright.core.files.onnx_import.agreement import check_agreement, gives_probabilities, session_of
from netwright.core.files.onnx_import.classifier import scores_alone
from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.file import names_read, parse
from netwright.core.files.onnx_import.plan import Input, Plan, declared, plans, read_input
from netwright.core.files.onnx_import.registry import READERS, SIZES, Node, attribute_value, to_torch
from netwright.core.files.onnx_import.sizes import settled
from netwright.core.files.onnx_import.values import Const, Operand, Size, Value
from netwright.core.files.scores import as_logits
from netwright.core.quiet import quiet

_PROBES = (3, 5)
_KEEP_ZERO = {
    "Expand", "Slice", "Gather", "Transpose", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Split", "Concat",
    "Cast", "Tile",
}  # fmt: skip
_DOMAINS = ("", "ai.onnx")
_IF = "If"
# pick among sizes: what they give is no decision
_MOVES_SIZES = {"Shape", "Gather", "Slice", "Squeeze", "Unsqueeze", "Identity", "Concat", "Split", "Reshape"}


def read_onnx(path: str | Path, example: tuple[Tensor, ...] | None = None) -> fx.GraphModule:
    """A trainable module in evaluation mode, with the outputs of ONNX Runtime to 1e-3 of the largest (checked).

    Floating tensors of the file become parameters (convolutions, linear, recurrent and normalising layers as
    torch's own), other constants buffers. The batch is free where the file's own operators allow it, even if
    the file fixes it. example: inputs, for files whose other sizes vary.
    core.fits.input_shapes tells the shapes that the file declares.
    Of a file with a label beside its scores the scores are read, as logits where the file has them, else as logarithms
    of its probabilities. Inputs of texts become codes (core/files/onnx_import/pipelines.py).
    Raises UnsupportedOperator, naming operator and node; BadInput for what is no readable ONNX network.
    """
    path = Path(path)
    whole = parse(path)
    model = scores_alone(whole)
    try:
        _known_operators(model.graph.node)
        return _read(model, path, example, model is whole)
    except NetwrightError as error:
        if not str(error).startswith(str(path)):
            error.args = (f"{path}: {error}",)
        raise


def _read(
    model: onnx.ModelProto, path: Path, example: tuple[Tensor, ...] | None, whole: bool
) -> fx.GraphModule:
    held = {t.name for t in model.graph.initializer}
    inputs = [read_input(v) for v in model.graph.input if v.name not in held]
    if not inputs:
        raise BadInput("this network takes no input")
    words = pipelines.vocabulary(model.graph)
    session: Any = None
    failure: Exception | None = None
    for plan in plans(inputs, example):
        try:
            with quiet():
                network = _convert(model, inputs, plan)
            session = session or session_of(model, path, whole)
            check_agreement(network, session, words, inputs, plan)
        except UnsupportedOperator:
            raise
        except Exception as error:
            # the plan that fixes everything as the file does tells best what is wrong
            failure = error
            continue
        if not plan.free and plan.batch is None and any(_operator(n) == _IF for n in model.graph.node):
            raise UnsupportedOperator(
                "If (in a file that could be read for one batch size only, though it takes any)", _first_if(model),
                "Netwright", "If that constants or sizes decide",
            ) from failure  # fmt: skip
        facts = {
            "inputs": [(i.name, s[1:]) for i, s in zip(inputs, declared(inputs), strict=True)],
            "outputs": [value.name for value in model.graph.output],
            "batch": None if plan.free else plan.batch,
            "types": [str(i.dtype).removeprefix("torch.") if not i.texts else "text" for i in inputs],
            "vocabulary": words,
            **{
                p.key.removeprefix("netwright."): p.value
                for p in model.metadata_props
                if "netwright." in p.key
            },
        }
        if not whole:
            facts["scores"] = "of its label and scores the scores are read"
            if gives_probabilities(network, words, inputs, plan):
                network = as_logits(network)
                facts["scores"] = "of its label and probabilities the probabilities are read, as logits"
        describe(network, facts)
        return network
    if isinstance(failure, NetwrightError):
        raise failure
    raise BadInput(f"this network cannot be read: {str(failure).strip().partition(chr(10))[0]}") from failure


def _known_operators(nodes: Iterable[onnx.NodeProto]) -> None:
    """Those of the branches of an If are looked at when one is taken."""
    for index, node in enumerate(nodes):
        operator = _operator(node)
        if operator not in READERS and operator != _IF:
            raise UnsupportedOperator(operator, node.name or f"{node.op_type}_{index}", "Netwright")


def _first_if(model: onnx.ModelProto) -> str:
    return next(n.name or f"{_IF}_{i}" for i, n in enumerate(model.graph.node) if _operator(n) == _IF)


def _operator(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in _DOMAINS else f"{node.domain}.{node.op_type}"


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
        env[entry.name] = e.input(entry.name, tuple(one[k] for one in at), entry.dtype)
    opset = max((o.version for o in model.opset_import if o.domain in _DOMAINS), default=1)
    used = Counter(name for node in model.graph.node for name in names_read(node))
    used.update(v.name for v in model.graph.output)
    words = {text: code for code, text in enumerate(pipelines.vocabulary(model.graph))}
    reading = _Reading(e, opset, used, _hints(model, used), words, weights_in_nodes)
    _steps(reading, model.graph.node, env)
    return _finish(e, [env[v.name] for v in model.graph.output])


@dataclass(frozen=True)
class _Reading:
    """What every node of a file is read with. used: how often each name is read. made: by which node it was."""

    emitter: Emitter
    opset: int
    used: Counter[str]
    hints: dict[str, str]
    words: dict[str, int]
    weights_in_nodes: bool
    made: dict[str, onnx.NodeProto] = field(default_factory=dict)


def _steps(r: _Reading, nodes: Iterable[onnx.NodeProto], env: dict[str, Operand], place: str = "") -> None:
    """Read nodes in order into env. place: what comes before the names of constants, in a branch."""
    for index, proto in enumerate(nodes):
        name = proto.name or f"{proto.op_type}_{index}"
        for read in proto.input:
            if read not in env:
                raise BadInput(f"node '{name}' reads '{read}', which nothing gives")
        if _operator(proto) == _IF:
            results: Iterable[Any] = _branch(r, proto, name, env, place)
        else:
            r.emitter.scope = _scope(name)
            results = _results(r.emitter, _node(r, proto, name, env))
        for output, result in zip(proto.output, results, strict=False):
            if isinstance(result, Const) and not result.name:
                result.name = place + output
                result.weight |= (
                    proto.op_type == "Constant" and r.weights_in_nodes and result.tensor.numel() > 1
                )
            env[output] = result
            r.made[output] = proto


def _node(r: _Reading, proto: onnx.NodeProto, name: str, env: dict[str, Operand]) -> Node:
    attributes = (
        pipelines.ml_attributes(proto, r.words) if proto.domain == pipelines.DOMAIN
        else {a.name: attribute_value(a) for a in proto.attribute}
    )  # fmt: skip
    return Node(
        _operator(proto), name, [env[i] for i in proto.input], attributes, r.opset,
        [r.used[o] for o in proto.output], r.hints.get(proto.output[0], "") if proto.output else "",
    )  # fmt: skip


def _asks_the_batch(r: _Reading, name: str, env: dict[str, Operand]) -> bool:
    """Whether what is known of this name was decided by a size that varies: it may be otherwise for other batches."""
    waiting, met = [name], set()
    while waiting:
        proto = r.made.get(waiting.pop())
        if proto is None or id(proto) in met:
            continue
        met.add(id(proto))
        varying = any(
            isinstance(env.get(i), np.ndarray) and any(isinstance(v, Size) for v in env[i].ravel())  # type: ignore[union-attr]
            for i in proto.input
        )
        if varying and proto.op_type not in _MOVES_SIZES:
            return True
        waiting += names_read(proto)
    return False


def _branch(
    r: _Reading, proto: onnx.NodeProto, name: str, env: dict[str, Operand], place: str
) -> list[Operand]:
    """The outputs of an If: of the branch that constants or sizes choose, read as if it stood there itself."""
    condition = env[proto.input[0]]
    if isinstance(condition, np.ndarray):
        condition = settled(condition)  # type: ignore[assignment]
    by_batch = _asks_the_batch(r, proto.input[0], env)
    if by_batch and r.emitter.batch is not None:
        raise BadInput(f"node '{name}' (If) depends on the batch size")  # read again with the file's own
    if by_batch or not isinstance(condition, Const):
        what = "depends on the batch size" if by_batch else "is computed from data"
        raise UnsupportedOperator(
            f"If (with a condition that {what})", name, "Netwright", "If that constants or other sizes decide"
        )
    wanted = "then_branch" if bool(condition.tensor.reshape(-1)[0]) else "else_branch"
    graph = next(a.g for a in proto.attribute if a.name == wanted)
    _known_operators(graph.node)
    place = f"{place}{proto.output[0]}."
    inner = dict(env)  # a branch reads what is around it; what it makes stays inside
    for tensor in graph.initializer:
        inner[tensor.name] = Const(to_torch(tensor), place + tensor.name, weight=True)
    _steps(r, graph.node, inner, place)
    return [inner[v.name] for v in graph.output]


def _results(e: Emitter, node: Node) -> tuple[Any, ...]:
    """A node's outputs."""
    made: Any = None
    no_tensor = all(isinstance(v, (np.ndarray, Const)) or v is None for v in node.inputs)
    if node.op in SIZES and no_tensor and any(isinstance(v, np.ndarray) for v in node.inputs):
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


def _hints(model: onnx.ModelProto, used: Counter[str]) -> dict[str, str]:
    """What is added to a bias 'layer.bias' comes from a layer 'layer', whatever its own weight is called."""
    held = {t.name for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Add":
            for bias, other in (node.input, tuple(node.input)[::-1]):
                if bias in held and used[bias] == 1 and bias.endswith(".bias"):
                    found[other] = bias.removesuffix(".bias")
    return found


def _scope(name: str) -> str:
    """A node's name as a place in the network: '/layer1/conv/Conv' gives 'layer1.conv'."""
    parts = [p for p in re.split(r"[/.]", name) if p]
    if name.startswith("/") and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts).removeprefix("node_")


def _finish(e: Emitter, outputs: list[Operand]) -> fx.GraphModule:
    values = [e.tensor(v) if isinstance(v, np.ndarray) else v for v in outputs]
    nodes = [e.node(v) for v in values]
    e.graph.output(nodes[0] if len(nodes) == 1 else tuple(nodes))
    network = fx.GraphModule(e.root, e.graph, "Network")
    network.graph.eliminate_dead_code()
    return fx.GraphModule(network, network.graph, "Network").eval()
