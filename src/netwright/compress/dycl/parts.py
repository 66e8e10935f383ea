"""From blocks to parts: what is constant or a mere renaming moves to the plan, and each block's live operations become
a static network with the values that it reads as inputs and those that are read later as outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from netwright.compress.dycl.program import Block, Decide, Goto, Result, Value, values_in

_RENAMING = ("clone", "detach", "contiguous")


@dataclass
class Part:
    """inputs, outputs: in the module's order."""

    module: fx.GraphModule
    inputs: list[Value]
    outputs: list[Value]
    key: Any


@dataclass
class Parts:
    """blocks: those that can be reached, in an order in which each leads to later ones. moves: those that matter.

    names: of values that are called otherwise by now. constants: values that do not depend on the input.
    """

    blocks: list[Block]
    of: dict[str, Part] = field(default_factory=dict)
    moves: dict[str, list[tuple[Value, Value]]] = field(default_factory=dict)
    names: dict[Value, Value] = field(default_factory=dict)
    constants: dict[Value, Tensor] = field(default_factory=dict)

    def named(self, value: Value) -> Value:
        while value in self.names:
            value = self.names[value]
        return value


def parts_of(blocks: list[Block], targets: Mapping[str, Any]) -> Parts:
    """blocks: as they were recorded, the first of all first."""
    parts = Parts(blocks)
    known: dict[fx.Node, Tensor] = {}
    for block in list(_reached(blocks)):
        _find_constants(block, parts, targets, known)
        _find_renamings(block, parts)
        if isinstance(block.end, Decide):
            test = parts.named(block.end.test)
            if test in parts.constants:
                block.end = Goto(block.end.yes if bool(parts.constants[test]) else block.end.no)
    parts.blocks = list(_reached(blocks))
    entry: dict[str, set[Value]] = {}
    for block in reversed(parts.blocks):
        _cut(block, parts, entry, targets, known)
    parts.blocks = list(_reached(blocks))
    return parts


def following(block: Block) -> tuple[Block, ...]:
    match block.end:
        case Decide(_, yes, no):
            return yes, no
        case Goto(to):
            return (to,)
    return ()


def _reached(blocks: list[Block]) -> Iterator[Block]:
    """A block is recorded before all that it leads to."""
    reached = {blocks[0].name}
    for block in blocks:
        if block.name in reached:
            yield block
            reached |= {after.name for after in following(block)}


def _find_constants(
    block: Block, parts: Parts, targets: Mapping[str, Any], known: dict[fx.Node, Tensor]
) -> None:
    """Compute what depends on the network's tensors and on nothing else."""
    for value, node in block.nodes.items():
        if value.attribute:
            known[node] = targets[value.attribute]
        elif value in block.reads and parts.named(value) in parts.constants:
            known[node] = parts.constants[parts.named(value)]
    for node in block.graph.nodes:
        if node in known or node.op in ("placeholder", "get_attr"):
            continue
        writer = node.meta.get("writer")
        sources = (
            [*node.all_input_nodes, *(n for n in writer.all_input_nodes if n is not node)] if writer else []
        )
        if all(n in known for n in sources or node.all_input_nodes):
            known[node] = _computed(node, targets, known)
    for value, node in block.nodes.items():
        if node in known and value not in block.reads and isinstance(known[node], Tensor):
            parts.constants[value] = known[node]


def _computed(node: fx.Node, targets: Mapping[str, Any], known: Mapping[fx.Node, Any]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: known[n])
    with torch.no_grad():
        if node.op == "call_module":
            return targets[str(node.target)](*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _find_renamings(block: Block, parts: Parts) -> None:
    """A value that is an input of the block in another name."""
    read = {node: value for value, node in block.reads.items()}
    for value, node in block.nodes.items():
        root = node
        while _renames(root):
            root = root.args[0]
        if root is not node and root in read:
            parts.names[value] = read[root]


def _renames(node: fx.Node) -> bool:
    return node.op == "call_method" and node.target in _RENAMING and "writer" not in node.meta


def _cut(
    block: Block,
    parts: Parts,
    entry: dict[str, set[Value]],
    targets: Mapping[str, Any],
    known: Mapping[fx.Node, Tensor],
) -> None:
    """Liveness, from the last block to the first: what a block must give, and so what it must compute and read."""
    _shorten(block, parts)
    after = set().union(*(entry[b.name] for b in following(block)))
    moves = [(target, parts.named(source)) for target, source in block.moves if target in after]
    wanted = (after - {target for target, _ in moves}) | {source for _, source in moves}
    if isinstance(block.end, Decide):
        wanted.add(parts.named(block.end.test))
    elif isinstance(block.end, Result):
        wanted |= {parts.named(value) for value in values_in(block.end.value)}
    wanted = {value for value in wanted if not _fixed(value, parts, targets)}
    outputs = [v for v in block.nodes if v in wanted and v not in block.reads and v not in parts.names]
    needed = _needed([block.nodes[value] for value in outputs], known)
    inputs = [value for value, node in block.reads.items() if node in needed]
    parts.moves[block.name] = moves
    if outputs:
        parts.of[block.name] = _part(block, inputs, outputs, needed, parts, targets, known)
        inputs = parts.of[block.name].inputs
    entry[block.name] = (wanted - set(outputs)) | set(inputs)


def _shorten(block: Block, parts: Parts) -> None:
    """Past blocks in which nothing happens; a decision of which both ways lead to one place is none."""
    match block.end:
        case Goto(to):
            block.end = Goto(_past(to, parts))
        case Decide(test, yes, no):
            yes, no = _past(yes, parts), _past(no, parts)
            block.end = Goto(yes) if _alike(yes, no, parts) else Decide(test, yes, no)


def _alike(a: Block, b: Block, parts: Parts) -> bool:
    """One block, or two that run nothing, rename the same and lead to the same place."""
    if a is b:
        return True
    if a.name in parts.of or b.name in parts.of or not (isinstance(a.end, Goto) and isinstance(b.end, Goto)):
        return False
    return a.end.to is b.end.to and set(parts.moves[a.name]) == set(parts.moves[b.name])


def _past(block: Block, parts: Parts) -> Block:
    while isinstance(block.end, Goto) and block.name not in parts.of and not parts.moves[block.name]:
        block = block.end.to
    return block


def _fixed(value: Value, parts: Parts, targets: Mapping[str, Any]) -> bool:
    if value.attribute:
        parts.constants[value] = targets[value.attribute]
    return value in parts.constants


def _needed(wanted: list[fx.Node], known: Mapping[fx.Node, Tensor]) -> set[fx.Node]:
    """Nodes that these depend on, those that change one of them in place among them."""
    needed: set[fx.Node] = set()
    waiting = list(wanted)
    while waiting:
        node = waiting.pop()
        if node in needed:
            continue
        needed.add(node)
        if node not in known:
            waiting += node.all_input_nodes
            if writer := node.meta.get("writer"):
                waiting.append(writer)
    return needed


def _part(
    block: Block,
    inputs: list[Value],
    outputs: list[Value],
    needed: set[fx.Node],
    parts: Parts,
    targets: Mapping[str, Any],
    known: Mapping[fx.Node, Tensor],
) -> Part:
    """The needed operations as a module of their own; inputs that are one by now are read once."""
    graph, new = fx.Graph(), {}
    root: dict[str, Any] = {}
    sources: dict[Value, fx.Node] = {}
    for value in inputs:
        if block.reads[value] in known:
            continue
        named = parts.named(value)
        if named not in sources:
            sources[named] = graph.placeholder(f"input_{len(sources)}")
        new[block.reads[value]] = sources[named]
    for node in block.graph.nodes:
        if node not in needed or node in new:
            continue
        if node in known:
            place = str(node.target) if node.op == "get_attr" else f"constant_{node.name}"
            root[place] = known[node]
            new[node] = graph.create_node("get_attr", place)
            continue
        if node.op == "call_module":
            root[str(node.target)] = targets[str(node.target)]
        new[node] = graph.node_copy(node, lambda n: new[n])
        new[node].meta = {}
    graph.output(tuple(new[block.nodes[value]] for value in outputs))
    module = fx.GraphModule(root, graph)
    shapes = tuple((tuple(v.fake.shape), v.fake.dtype) for v in sources)
    return Part(module.eval(), list(sources), outputs, (shapes, _written(graph, root)))


def _written(graph: fx.Graph, root: Mapping[str, Any]) -> Any:
    """Equal for parts that compute the same."""
    place = {node: k for k, node in enumerate(graph.nodes)}
    lines = []
    for node in graph.nodes:
        target: Any = node.target
        if node.op == "get_attr":
            target = _content(root[str(node.target)])
        elif node.op == "call_module":
            target = id(root[str(node.target)])
        args = fx.node.map_arg((node.args, node.kwargs), lambda n: f"%{place[n]}")  # type: ignore[arg-type, return-value]
        lines.append((node.op, "" if node.op == "placeholder" else target, repr(args)))
    return tuple(lines)


def _content(tensor: Tensor) -> Any:
    if tensor.numel() > 64 or isinstance(tensor, nn.Parameter):
        return id(tensor)
    return tuple(tensor.shape), tensor.dtype, tuple(tensor.flatten().tolist())
