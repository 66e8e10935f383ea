"""Which layers of a network become signs: all but the first and the last of every path through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from netwright.core.errors import NotApplicable
from netwright.core.graph.ir import HELD, Graph, Node

_LAYERS: dict[str, Any] = {
    "aten.conv1d.default": nn.Conv1d, "aten.conv1d.padding": nn.Conv1d, "aten.conv2d.default": nn.Conv2d,
    "aten.conv2d.padding": nn.Conv2d, "aten.linear.default": nn.Linear,
}  # fmt: skip
_PRODUCTS = ("conv", "linear", "lstm", "gru", "rnn", "embedding", "mm", "addmm", "bmm", "matmul")
_RELUS = ("aten.relu.default", "aten.relu_.default")


@dataclass(frozen=True)
class Place:
    """A layer that becomes signs. places: sizes of its output behind the channels; () for a linear layer."""

    name: str
    places: tuple[int, ...]


def found(network: nn.Module, graph: Graph) -> list[Place]:
    """In the order in which they run: plain convolutions of 1 or 2 dimensions without groups and plain linear layers,
    that run once on a weight of their own, with other layers before and behind them. NotApplicable without any."""
    before, behind = _reached(graph.nodes, lambda n: n.inputs), _reached(graph.nodes[::-1], lambda n: n.users)
    places = []
    for node in graph.nodes:
        if node in before and node in behind and _plain(network, graph, node):
            places.append(Place(node.module or "", () if "linear" in node.op else tuple(node.shape[2:])))
    if not places:
        raise NotApplicable(
            "there is no plain convolution or linear layer between the first and the last, which stay real"
        )
    return places


def _reached(nodes: list[Node], sources: Any) -> set[Node]:
    """The nodes that some product with weights comes before, in this order."""
    reached: set[Node] = set()
    for node in nodes:
        if any(source in reached or _product(source) for source in sources(node)):
            reached.add(node)
    return reached


def _product(node: Node) -> bool:
    kind = node.op.removeprefix("aten.").partition(".")[0]
    return kind.startswith(_PRODUCTS) and any(n.op in HELD and len(n.shape) > 1 for n in node.inputs)


def _plain(network: nn.Module, graph: Graph, node: Node) -> bool:
    """Whether this node is a layer that can be replaced."""
    kind = _LAYERS.get(node.op)
    weight = node.args[1] if kind else None
    if not isinstance(weight, Node) or weight.parameter is None or weight.users != [node]:
        return False
    name = weight.parameter.rpartition(".")[0]
    if (
        node.module != name
        or weight.parameter in graph.aliases.values()
        or weight.parameter != f"{name}.weight"
    ):
        return False
    layer: Any = network.get_submodule(name)
    if type(layer) is not kind or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if kind is nn.Linear:
        return True
    even = layer.padding == "same" and any(d * (k - 1) % 2 for d, k in _pairs(layer))
    return (
        layer.groups == 1
        and layer.padding_mode == "zeros"
        and not even
        and len(node.shape) == weight_rank(layer)
    )


def weight_rank(layer: Any) -> int:
    return len(layer.weight.shape)


def _pairs(layer: Any) -> Any:
    return zip(layer.dilation, layer.kernel_size, strict=True)


def padding_of(layer: Any) -> tuple[int, ...]:
    """A convolution's padding on either side, in numbers."""
    if layer.padding == "valid":
        return (0,) * len(layer.kernel_size)
    if layer.padding == "same":
        return tuple(d * (k - 1) // 2 for d, k in _pairs(layer))
    return tuple(layer.padding)


def rectifiers(network: nn.Module, graph: Graph) -> dict[str, int]:
    """ReLU modules that run once on (B, C) or (B, C, H, W), and their channels."""
    runs = [node for node in graph.nodes if node.op in _RELUS and node.module]
    counts = {node.module: sum(other.module == node.module for other in runs) for node in runs}
    return {
        node.module or "": node.shape[1]
        for node in runs
        if counts[node.module] == 1
        and len(node.shape) in (2, 4)
        and type(network.get_submodule(node.module or "")) is nn.ReLU
    }
