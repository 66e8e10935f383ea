"""Layers replaced in a copy of a network: batch norms folded into what precedes them, and swaps by a rule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from netwright.core.graph import Graph, Node, trace
from netwright.core.network import Inputs, clone

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def swap(
    network: nn.Module,
    match: Callable[[str, nn.Module], bool],
    factory: Callable[[str, nn.Module], nn.Module],
) -> nn.Module:
    """A copy in which `factory(name, module)` stands in the place of every module that matches.

    A module that stands in several places is replaced by one new module in all of them; the modules inside a
    replaced one are not looked at. The factory gets the copy's module and may take over its weights.
    """
    network = clone(network)
    if match("", network):
        return factory("", network)
    made: dict[nn.Module, nn.Module] = {}

    def visit(parent: nn.Module, prefix: str) -> None:
        for name, child in list(parent.named_children()):
            path = f"{prefix}{name}"
            if child in made or match(path, child):
                if child not in made:
                    made[child] = factory(path, child).train(child.training)
                setattr(parent, name, made[child])
            else:
                visit(child, f"{path}.")

    visit(network, "")
    return network


def fold(network: nn.Module, example: Inputs) -> nn.Module:
    """A copy for inference whose batch norms are folded into the convolution or linear layer before them.

    A batch norm is folded where the traced graph shows that it alone reads that layer's result, that both are
    modules used once, and that it has running statistics; every other one stays. Folded ones become Identity.
    Outputs in evaluation mode are equal up to rounding.
    """
    network = clone(network).eval()
    graph = trace(network, example)
    modules = dict(network.named_modules())
    for layer, norm in _pairs(graph, modules):
        absorb(modules[layer], modules[norm])
        parent, _, name = norm.rpartition(".")
        setattr(modules[parent], name, nn.Identity())
    return network


def _pairs(graph: Graph, modules: dict[str, nn.Module]) -> list[tuple[str, str]]:
    """Names of (layer, batch norm) that may be folded."""
    runs: dict[str, int] = {}
    for node in graph.nodes:
        if node.module is not None and node.op.startswith("aten."):
            runs[node.module] = runs.get(node.module, 0) + 1
    pairs = []
    for node in graph.nodes:
        source = node.args[0] if node.args and isinstance(node.args[0], Node) else None
        if source is None or source.module is None or node.module is None or source.users != [node]:
            continue
        layer, norm = modules.get(source.module), modules.get(node.module)
        if (
            isinstance(norm, _NORMS)
            and norm.track_running_stats
            and isinstance(layer, (*_CONVOLUTIONS, nn.Linear))
            and source.op.startswith(("aten.conv", "aten.linear"))
            and "batch_norm" in node.op
            and runs[source.module] == runs[node.module] == 1
            and source not in graph.outputs
            and not any(parametrize.is_parametrized(m) for m in (layer, norm))
            and not (isinstance(layer, nn.Linear) and len(source.shape) != 2)  # else channels are elsewhere
            and not _shared(graph, modules, source.module)
        ):
            pairs.append((source.module, node.module))
    return pairs


def _shared(graph: Graph, modules: dict[str, nn.Module], name: str) -> bool:
    """Whether this layer's tensors have other names, or other readers, in the network."""
    layer = modules[name]
    mine = {id(p) for p in layer.parameters()}
    for other, module in modules.items():
        if other != name and any(id(p) in mine for p in module.parameters(recurse=False)):
            return True
    names = {f"{name}.{n}" for n, _ in layer.named_parameters()}
    return any(node.parameter in names and len(node.users) > 1 for node in graph.nodes)


@torch.no_grad()
def absorb(layer: nn.Module, norm: nn.Module) -> None:
    """w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta."""
    weight, mean = _tensor(layer.weight), _tensor(norm.running_mean)
    variance = _tensor(norm.running_var)
    factor = (variance.double() + norm.eps).rsqrt()  # type: ignore[operator]
    if norm.weight is not None:
        factor = factor * _tensor(norm.weight).double()
    bias = torch.zeros_like(mean) if layer.bias is None else _tensor(layer.bias)
    shift = (bias.double() - mean.double()) * factor
    if norm.bias is not None:
        shift = shift + _tensor(norm.bias).double()
    shaped = factor.view(-1, *[1] * (weight.dim() - 1))
    layer.weight = nn.Parameter((weight.double() * shaped).to(weight.dtype))
    layer.bias = nn.Parameter(shift.to(weight.dtype))


def _tensor(value: Tensor | nn.Module) -> Tensor:
    assert isinstance(value, Tensor)
    return value
