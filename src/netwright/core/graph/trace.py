"""From a network to its graph, by torch.export."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

from netwright.core.errors import NotApplicable
from netwright.core.graph.ir import BUFFER, CONSTANT, INPUT, PARAMETER, Graph, Level, Node
from netwright.core.network import Inputs, as_tuple, device_of, evaluating, move

_KINDS = {
    InputKind.PARAMETER: PARAMETER,
    InputKind.BUFFER: BUFFER,
    InputKind.CONSTANT_TENSOR: CONSTANT,
    InputKind.USER_INPUT: INPUT,
}


def trace(network: nn.Module, example: Inputs, level: Level = "structure") -> Graph:
    """The graph of a network in evaluation mode.

    example: inputs, batch first; their values do not matter. The batch is dynamic where the network permits.
    level: 'structure' keeps ATen operators as exported (conv2d, linear, batch_norm, lstm.input,
    scaled_dot_product_attention, layer_norm; in-place ones stay in place); 'core' decomposes to core ATen,
    which is functional.
    Raises NotApplicable with the reason where torch.export cannot follow the network.
    """
    inputs = as_tuple(move(as_tuple(example), device_of(network)))
    with evaluating(network), torch.no_grad(), _quiet():
        program = _export(network, inputs)
        if level == "core":
            program = decomposed(program, None)
    return _read(network, program, level)


def decomposed(
    program: torch.export.ExportedProgram, table: dict[Any, Any] | None
) -> torch.export.ExportedProgram:
    """The program in other operators, by torch's own table where None is given; NotApplicable where torch cannot."""
    try:
        return program.run_decompositions(table)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise NotApplicable(f"this network cannot be taken apart into plain operators: {reason}") from error


def _export(network: nn.Module, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """With a dynamic batch; static, of the example's own batch size, where that fails."""
    # a batch of one would be taken for a constant
    widened = tuple(torch.cat([t, t]) if t.dim() and t.shape[0] == 1 else t for t in inputs)
    batch = tuple({0: torch.export.Dim.AUTO} if t.dim() else None for t in inputs)
    try:
        # one entry for the positional arguments, whatever the forward calls them (it may take *args)
        return torch.export.export(network, widened, dynamic_shapes=_spec(network, batch))
    except Exception:
        try:
            return torch.export.export(network, inputs)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise NotApplicable(f"this network cannot be traced: {reason}") from error


def _spec(network: nn.Module, batch: tuple[Any, ...]) -> Any:
    """Dynamic shapes in the form that torch.export wants: a variadic argument is one entry."""
    kinds = [p.kind for p in inspect.signature(network.forward).parameters.values()]
    for position, kind in enumerate(kinds):
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return (*batch[:position], batch[position:])
    return batch


def _read(network: nn.Module, program: torch.export.ExportedProgram, level: Level) -> Graph:
    """The exported program in our own terms."""
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ):
        canonical = first.setdefault(id(tensor), name)
        if canonical != name:
            aliases[name] = canonical
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    held: dict[str, dict[str, Tensor]] = {PARAMETER: {}, BUFFER: {}, CONSTANT: {}}
    nodes: dict[torch.fx.Node, Node] = {}
    canonical_node: dict[str, Node] = {}
    for raw in program.graph.nodes:
        if raw.op == "output":
            continue
        if raw.op == "placeholder":
            spec = specs[raw.name]
            kind = _KINDS.get(spec.kind)
            if kind is None:
                raise NotApplicable(f"this network cannot be traced: it takes a {spec.kind.name.lower()}")
            node = Node(raw.name, kind, **_meta(raw))
            if kind != INPUT:
                node.parameter = name = aliases.get(spec.target or "", spec.target or "")
                if name in canonical_node:  # another name of a tensor that stands already
                    nodes[raw] = canonical_node[name]
                    continue
                canonical_node[name] = node
                held[kind][name] = _tensor(network, program, spec.target or "")
        else:
            node = Node(
                raw.name,
                _operator(raw.target),
                _arguments(raw.args, nodes),
                {k: _arguments(v, nodes) for k, v in raw.kwargs.items()},
                **_meta(raw),
                module=_module(raw),
                target=raw.target,
            )
        nodes[raw] = node
    returned = [nodes[raw] for raw in program.graph.output_node().args[0] if isinstance(raw, torch.fx.Node)]
    listed = _alive(list(dict.fromkeys(nodes.values())), returned)
    for node in listed:
        for source in dict.fromkeys(node.inputs):
            source.users.append(node)
    given = [node for node in listed if node.op == INPUT]
    symbolic = any(_varies(raw.meta.get("val")) for raw, node in nodes.items() if node.op == INPUT)
    batch = 1 if symbolic else next((n.shape[0] for n in given if n.shape), 1)
    return Graph(
        listed, given, returned, held[PARAMETER], held[BUFFER], held[CONSTANT], aliases, level, symbolic, batch,
        program,
    )  # fmt: skip


def _alive(nodes: list[Node], outputs: list[Node]) -> list[Node]:
    """Without the nodes whose result nobody reads (attention weights that are not asked for, say)."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        schema = getattr(node.target, "_schema", None)
        if node.target is None or node in needed or (schema is not None and schema.is_mutable):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _tensor(network: nn.Module, program: torch.export.ExportedProgram, target: str) -> Tensor:
    """The network's own tensor of this name, or the constant that the program carries."""
    owner, _, attribute = target.rpartition(".")
    try:
        return getattr(network.get_submodule(owner), attribute)
    except AttributeError:
        return program.constants.get(target, program.state_dict.get(target))


def _varies(value: Any) -> bool:
    """Whether the first dimension of an input is a symbol still (the network may have fixed it)."""
    if not isinstance(value, Tensor) or not value.dim() or isinstance(value.shape[0], int):
        return False
    return bool(value.shape[0].node.expr.free_symbols)


def _meta(raw: torch.fx.Node) -> dict[str, Any]:
    value = raw.meta.get("val")
    if not isinstance(value, Tensor):
        return {}
    return {"shape": tuple(at_batch_one(size) for size in value.shape), "dtype": value.dtype}


def at_batch_one(size: int | torch.SymInt) -> int:
    """A size with every symbol (the batch) set to one."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, 1)))


def _arguments(value: Any, nodes: dict[torch.fx.Node, Node]) -> Any:
    if isinstance(value, torch.fx.Node):
        return nodes[value]
    if isinstance(value, (list, tuple)):
        items = [_arguments(item, nodes) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def _operator(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return f"operator.{target.__name__}" if target.__module__ == "_operator" else str(target)


def _module(raw: torch.fx.Node) -> str | None:
    stack = list((raw.meta.get("nn_module_stack") or {}).values())
    if not stack or stack[-1][0].startswith("_empty"):
        return None
    return stack[-1][0]


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export warns and logs about what we handle; silence it for the while."""
    log = logging.getLogger("torch")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            log.setLevel(level)
