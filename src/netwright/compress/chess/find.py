"""Where a network has gated feed-forwards, down(activation(gate(x)) * up(x)), and attention, read from its graph.

Found by what is computed, whatever the modules are called. A layer counts only where it can be replaced: a plain
`nn.Linear` that runs once, whose weight nobody else uses.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from netwright.core.graph.ir import Graph, Node

_LINEAR = "aten.linear.default"
_ATTENTION = "aten.scaled_dot_product_attention.default"
_SAME = {f"aten.{name}.default" for name in ("dropout", "clone", "contiguous", "alias", "detach")}
_MOVED = _SAME | {
    "aten.transpose.int", "aten.permute.default", "aten.view.default", "aten.reshape.default",
    "aten._unsafe_view.default", "aten.flatten.using_ints", "aten.unflatten.int", "aten.squeeze.dim",
}  # fmt: skip
_HALVES = {"aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default"}


@dataclass(frozen=True)
class Gated:
    """Names of a feed-forward's linear layers. up is gate where one layer makes both, as halves of its output;
    gate_first: whether the gate is then the first of them. activation: its name in layers.ACTIVATIONS."""

    gate: str
    up: str
    down: str
    activation: str
    gate_first: bool = True


def gated(network: nn.Module, graph: Graph) -> list[Gated]:
    """The gated feed-forwards, in the order in which they run. graph: of the network, at level 'structure'."""
    found = []
    for node in graph.nodes:
        if node.op in ("aten.mul.Tensor", "aten.mul_.Tensor") and len(node.inputs) == 2:
            a, b = node.inputs
            match = _match(network, graph, node, a, b) or _match(network, graph, node, b, a)
            if match is not None:
                found.append(match)
    return found


def _match(network: nn.Module, graph: Graph, product: Node, left: Node, right: Node) -> Gated | None:
    """The feed-forward whose gate is on the left of this product."""
    act, up = _before(left, product), _before(right, product)
    activation = _activation(act)
    down = _after(product, _SAME)
    if activation is None or act is None or up is None or down is None or down.op != _LINEAR:
        return None
    gate, first = _before(act.inputs[0], act), True
    if gate is None:
        return None
    if _half(gate) is not None and _half(up) is not None:
        if gate.args[0] is not up.args[0] or {gate.args[1], up.args[1]} != {0, 1} or gate.shape != up.shape:
            return None
        first = gate.args[1] == 0
        gate = up = _before(_half(gate), gate.args[0])
        if gate is None or gate.shape[-1] != 2 * act.shape[-1]:
            return None
    elif gate.args[:1] != up.args[:1]:
        return None
    names = [_layer(network, graph, node) for node in (gate, up, down)]
    if None in names:
        return None
    return Gated(*names, activation, first)  # type: ignore[arg-type]


def _activation(node: Node | None) -> str | None:
    """Its name in layers.ACTIVATIONS."""
    if node is None:
        return None
    name = node.op.removeprefix("aten.").removesuffix(".default").removesuffix("_")
    if name == "gelu" and node.kwargs.get("approximate", "none") == "tanh":
        return "gelu-tanh"
    known = ("silu", "gelu", "relu", "mish", "hardswish", "tanh", "sigmoid")
    return name if name in known else None


def _half(node: Node) -> Node | None:
    """What is halved, where this is a half of something along its last axis."""
    if node.op != "operator.getitem" or node.args[0].op not in _HALVES or len(node.args[0].users) != 2:
        return None
    return node.args[0].inputs[0]


def _before(node: Node, user: Node) -> Node | None:
    """What the user reads, behind operators that leave it as it is; None where anybody else reads it too."""
    while node.users == [user]:
        if node.op not in _SAME:
            return node
        node, user = node.inputs[0], node
    return None


def _after(node: Node, through: set[str]) -> Node | None:
    """The only reader of a node, behind operators of these kinds."""
    while len(node.users) == 1:
        user = node.users[0]
        if user.op not in through:
            return user if user.inputs[0] is node else None
        node = user
    return None


def _layer(network: nn.Module, graph: Graph, node: Node) -> str | None:
    """The name of the plain linear layer that this node is, if it can be replaced."""
    weight = node.args[1] if node.op == _LINEAR else None
    if not isinstance(weight, Node) or weight.users != [node] or weight.parameter is None:
        return None
    name = weight.parameter.rpartition(".")[0]
    if node.module != name or weight.parameter in graph.aliases.values():
        return None
    module = network.get_submodule(name)
    hooked = module._forward_hooks or module._forward_pre_hooks
    return name if type(module) is nn.Linear and not hooked else None


def attention(network: nn.Module, graph: Graph) -> list[str]:
    """The linear layers that make the queries and those that read what attention gives. Keys and values stay as they
    are: their errors would stay in a cache."""
    names: dict[str, None] = {}
    for node in graph.nodes:
        if node.op != _ATTENTION:
            continue
        query, key, value = (_linear_behind(source) for source in node.inputs[:3])
        reader = _after(node, _MOVED)
        wanted = [reader] if reader is not None else []
        if len(query) == 1 and not query & (key | value):
            wanted.insert(0, next(iter(query)))
        for found in wanted:
            name = _layer(network, graph, found)
            if name is not None:
                names[name] = None
    return list(names)


def _linear_behind(node: Node) -> set[Node]:
    """The linear layers that a node is computed from, the nearest ones."""
    found, seen, open_ = set(), set(), [node]
    while open_:
        node = open_.pop()
        if node.op == _LINEAR:
            found.add(node)
        elif node not in seen:
            seen.add(node)
            open_.extend(node.inputs)
    return found
