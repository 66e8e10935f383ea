"""Where a network has feed-forwards, read from its graph: down(activation(up(x))), and gated ones,
down(activation(gate(x)) * up(x)).

Found by what is computed, whatever the modules are called. A layer counts only where it can be replaced: a plain
`nn.Linear` that runs once, whose weight nobody else uses.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from torch import nn

from netwright.core.graph.ir import Graph, Node

LINEAR = "aten.linear.default"
SAME = frozenset(f"aten.{name}.default" for name in ("dropout", "clone", "contiguous", "alias", "detach"))
_HALVES = {"aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default"}
_PRODUCTS = ("aten.mul.Tensor", "aten.mul_.Tensor")
_SUMS = ("aten.add.Tensor", "aten.add_.Tensor")
_ACTIVATIONS = ("silu", "gelu", "relu", "mish", "hardswish", "tanh", "sigmoid")


@dataclass(frozen=True)
class Feed:
    """Names of a feed-forward's linear layers, and of its activation ('gelu-tanh' for gelu's approximation).

    gate: None where there is none; equal to up where one layer makes both, as halves of its output; gate_first:
    whether the gate is then the first of them. adds: name of the module in whose forward the output is added to
    something else (the stream of a transformer); None where it is not.
    """

    gate: str | None
    up: str
    down: str
    activation: str
    gate_first: bool = True
    adds: str | None = None


def gated(network: nn.Module, graph: Graph) -> list[Feed]:
    """The gated feed-forwards, in the order in which they run. graph: of the network, at level 'structure'."""
    return [feed for feed in feeds(network, graph) if feed.gate is not None]


def feeds(network: nn.Module, graph: Graph) -> list[Feed]:
    """All feed-forwards, in the order in which they run. Of plain layers behind one another, each pair is one."""
    found = []
    for node in graph.nodes:
        if node.op in _PRODUCTS and len(node.inputs) == 2:
            a, b = node.inputs
            found.append(_gated(network, graph, node, a, b) or _gated(network, graph, node, b, a))
        elif node.op == LINEAR:
            found.append(_plain(network, graph, node))
    return [feed for feed in found if feed is not None]


def _plain(network: nn.Module, graph: Graph, down: Node) -> Feed | None:
    """The feed-forward without a gate whose last layer this is."""
    act = before(down.inputs[0], down)
    activation = _activation(act)
    if activation is None or act is None:
        return None
    up = before(act.inputs[0], act)
    names = [layer_of(network, graph, node) for node in (up, down)]
    if names[0] is None or names[1] is None:
        return None
    return Feed(None, names[0], names[1], activation, adds=_adds(down))


def _gated(network: nn.Module, graph: Graph, product: Node, left: Node, right: Node) -> Feed | None:
    """The feed-forward whose gate is on the left of this product."""
    act, up = before(left, product), before(right, product)
    activation = _activation(act)
    down = after(product, SAME)
    if activation is None or act is None or up is None or down is None or down.op != LINEAR:
        return None
    gate, first = before(act.inputs[0], act), True
    if gate is None:
        return None
    if _half(gate) is not None and _half(up) is not None:
        if gate.args[0] is not up.args[0] or {gate.args[1], up.args[1]} != {0, 1} or gate.shape != up.shape:
            return None
        first = gate.args[1] == 0
        both = before(gate.args[0].inputs[0], gate.args[0])
        if both is None or both.shape[-1] != 2 * act.shape[-1]:
            return None
        gate = up = both
    elif gate.args[:1] != up.args[:1]:
        return None
    names = [layer_of(network, graph, node) for node in (gate, up, down)]
    if names[0] is None or names[1] is None or names[2] is None:
        return None
    return Feed(names[0], names[1], names[2], activation, first, _adds(down))


def _activation(node: Node | None) -> str | None:
    if node is None:
        return None
    name = node.op.removeprefix("aten.").removesuffix(".default").removesuffix("_")
    if name == "gelu" and node.kwargs.get("approximate", "none") == "tanh":
        return "gelu-tanh"
    return name if name in _ACTIVATIONS else None


def _half(node: Node) -> Node | None:
    """What is halved, where this is a half of something along its last axis."""
    if node.op != "operator.getitem" or node.args[0].op not in _HALVES or len(node.args[0].users) != 2:
        return None
    return node.args[0].inputs[0]


def _adds(node: Node) -> str | None:
    """Where the node's result is added to something else of its shape, behind operators that leave it as it is."""
    while len(node.users) == 1:
        user = node.users[0]
        if user.op in _SUMS:
            alike = len(user.inputs) == 2 and all(each.shape == node.shape for each in user.inputs)
            return user.module if alike else None
        if user.op not in SAME:
            return None
        node = user
    return None


def before(node: Node, user: Node) -> Node | None:
    """What the user reads, behind operators that leave it as it is; None where anybody else reads it too."""
    while node.users == [user]:
        if node.op not in SAME:
            return node
        node, user = node.inputs[0], node
    return None


def after(node: Node, through: Container[str]) -> Node | None:
    """The only reader of a node, behind operators of these kinds."""
    while len(node.users) == 1:
        user = node.users[0]
        if user.op not in through:
            return user if user.inputs[0] is node else None
        node = user
    return None


def layer_of(network: nn.Module, graph: Graph, node: Node | None) -> str | None:
    """The name of the plain linear layer that this node is, if it can be replaced."""
    weight = node.args[1] if node is not None and node.op == LINEAR else None
    if node is None or not isinstance(weight, Node) or weight.users != [node] or weight.parameter is None:
        return None
    name = weight.parameter.rpartition(".")[0]
    if node.module != name or weight.parameter in graph.aliases.values():
        return None
    module = network.get_submodule(name)
    hooked = module._forward_hooks or module._forward_pre_hooks
    return name if type(module) is nn.Linear and not hooked else None
