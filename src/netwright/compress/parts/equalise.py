"""Channels brought to equal ranges from one layer to the next, with outputs as they were.

Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv 1906.04721.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netwright.core.graph import Dependencies, Group, Node, dependencies, trace
from netwright.core.graph.ir import HELD
from netwright.core.graph.labels.rules import kind
from netwright.core.network import Inputs

# f(s x) = s f(x) for s > 0, channel by channel
_WEIGHTED = {"conv1d", "conv2d", "conv3d", "linear"}
_SUMS = {"add", "sub"}
_HOMOGENEOUS = {
    *_WEIGHTED, *_SUMS, "relu", "leaky_relu", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "mean", "view", "reshape",
    "flatten", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "clone", "dropout", "cat", "chunk",
    "split", "slice", "alias", "operator.getitem",
}  # fmt: skip


def equalise(network: nn.Module, example: Inputs, sweeps: int = 3) -> int:
    """Divide what makes a unit by s and multiply what reads it by s, in place; how many groups of units.

    s = sqrt(r1 / r2) of the largest weights that make and read it, so that both become sqrt(r1 r2). Where units of
    several layers are added (residual networks) they share their s. Only units between which nothing stands but
    operators that a positive factor passes through: a batch norm must be folded first. A group whose units no weight
    makes, or none reads, stays.
    """
    found = dependencies(trace(network, example))
    groups = [group for group in found.groups if _passes(found, group)]
    for _ in range(sweeps):
        for group in groups:
            _scale(found, group)
    return len(groups)


def _passes(found: Dependencies, group: Group) -> bool:
    """Whether all that touches the group's units lets a factor through."""
    units = set(found.units[group.name].tolist())
    weights = [s for s in group.slices if s.reads or _tensor(found, s.parameter).dim() > 1]
    if not group.exact or {s.reads for s in weights} != {True, False}:
        return False
    mine = {
        node
        for node, pattern in found.patterns.items()
        if node.op not in HELD and any(units & set(labels.flatten().tolist()) for labels in pattern.values())
    }
    return all(_lets_through(node, mine) for node in mine | {u for n in mine for u in n.users})


def _lets_through(node: Node, mine: set[Node]) -> bool:
    """mine: the nodes whose results hold units of the group."""
    if kind(node) == "sym_size":
        return True
    if kind(node) not in _HOMOGENEOUS:
        return False
    read = [source for source in node.inputs if source in mine]
    if kind(node) in _WEIGHTED:  # makes the units or reads them; a depthwise one does both
        return not (node in mine and read)
    return node in mine and (kind(node) not in _SUMS or (len(read) == 2 and not node.kwargs))


@torch.no_grad()
def _scale(found: Dependencies, group: Group) -> None:
    made = _range(found, group, reads=False)
    read = _range(found, group, reads=True)
    s = torch.where((made > 0) & (read > 0), (made / read).sqrt(), torch.ones_like(made))
    for part in group.slices:
        tensor = _tensor(found, part.parameter)
        factor = torch.ones(tensor.shape[part.axis]).to(tensor)
        factor[part.index.flatten()] = (
            (s if part.reads else 1 / s).repeat_interleave(part.index.shape[1]).to(tensor)
        )
        tensor.mul_(factor.view(-1, *[1] * (tensor.dim() - 1 - part.axis)))


def _range(found: Dependencies, group: Group, reads: bool) -> Tensor:
    """(units,) the largest size of the weights that make, or read, each unit."""
    largest = torch.zeros(group.size)
    for part in group.slices:
        tensor = _tensor(found, part.parameter)
        if part.reads == reads and tensor.dim() > 1:
            by_place = tensor.abs().movedim(part.axis, 0).flatten(1).amax(1)
            largest = torch.maximum(largest, by_place[part.index].amax(1).to(largest))
    return largest


def _tensor(found: Dependencies, name: str) -> Tensor:
    graph = found.graph
    return next(held[name] for held in (graph.parameters, graph.buffers, graph.constants) if name in held)
