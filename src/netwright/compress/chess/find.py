"""Where a network has attention between linear layers, read from its graph."""

from __future__ import annotations

from torch import nn

from netwright.core.graph.feeds import LINEAR, SAME, after, layer_of
from netwright.core.graph.ir import Graph, Node

_ATTENTION = "aten.scaled_dot_product_attention.default"
_MOVED = SAME | {
    "aten.transpose.int", "aten.permute.default", "aten.view.default", "aten.reshape.default",
    "aten._unsafe_view.default", "aten.flatten.using_ints", "aten.unflatten.int", "aten.squeeze.dim",
}  # fmt: skip


def attention(network: nn.Module, graph: Graph) -> list[str]:
    """The linear layers that make the queries and those that read what attention gives. Keys and values stay as they
    are: their errors would stay in a cache."""
    names: dict[str, None] = {}
    for node in graph.nodes:
        if node.op != _ATTENTION:
            continue
        query, key, value = (_linear_behind(source) for source in node.inputs[:3])
        reader = after(node, _MOVED)
        wanted = [reader] if reader is not None else []
        if len(query) == 1 and not query & (key | value):
            wanted.insert(0, next(iter(query)))
        for found in wanted:
            name = layer_of(network, graph, found)
            if name is not None:
                names[name] = None
    return list(names)


def _linear_behind(node: Node) -> set[Node]:
    """The linear layers that a node is computed from, the nearest ones."""
    found, seen, open_ = set(), set(), [node]
    while open_:
        node = open_.pop()
        if node.op == LINEAR:
            found.add(node)
        elif node not in seen:
            seen.add(node)
            open_.extend(node.inputs)
    return found
