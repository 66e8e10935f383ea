"""Which slices of which parameters move together.

Every element of every activation is labelled with the unit (channel, feature, head, hidden unit) that it
belongs to. Layers make new labels, operators that only move elements are run on the labels themselves, and
wherever elements meet their labels are merged. What remains are classes of slices that go or stay together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from netwright.core.graph.ir import HELD, Graph, Node
from netwright.core.graph.labels.analysis import Analysis
from netwright.core.graph.labels.classes import FIXED, FREE
from netwright.core.graph.labels.operators import follow
from netwright.core.graph.labels.values import Held


@dataclass(frozen=True, eq=False)
class Slice:
    """Where the units of a group lie in one axis of one held tensor: index (size, k), row u for unit u.

    reads: the tensor is a weight that sums over the units along this axis (it does not make them).
    """

    parameter: str
    axis: int
    index: Tensor
    reads: bool = False


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be removed one by one, each with all that belongs to it.

    name: of the layer that makes the units, with the first unit's position where the layer makes several groups.
    slices: of the making layer first. exact: removing a unit equals zeroing it; False where a normalisation
    over the units (layer, group or RMS norm) then runs over those that are left.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    exact: bool = True

    def __repr__(self) -> str:
        return f"Group({self.name}, {self.size} units, {len(self.slices)} slices)"


# How units lie in a tensor: label of each index, by dimension. An activation has one such dimension at most, a
# weight or a view of it may have several.
Pattern = dict[int, Tensor]


@dataclass(frozen=True, eq=False)
class Dependencies:
    """groups: what can be removed. blocked: why not, by parameter. patterns: how units lie in activations.

    units: group name -> label of each unit, as in the patterns.
    """

    graph: Graph
    groups: list[Group]
    blocked: dict[str, str]
    patterns: dict[Node, Pattern]
    units: dict[str, Tensor]


def groups(graph: Graph) -> list[Group]:
    """Groups of units of a graph traced at level 'structure', in the order in which the layers run.

    Outputs of the network and its input features are in none. What an unknown operator touches is in none.
    """
    return dependencies(graph).groups


def dependencies(graph: Graph) -> Dependencies:
    """The full result of the analysis."""
    analysis = Analysis(graph)
    inputs = [torch.tensor(FIXED).expand(node.shape) for node in graph.inputs]

    def hold(node: Node) -> Held:
        return Held(node.parameter or "", tuple(graph.held(node).shape))

    for value in graph.run(inputs, partial(follow, analysis), hold):
        if isinstance(value, Held):
            analysis.table.refuse(value, "it is an output of the network")
        else:
            analysis.classes.fix(value, "it makes outputs of the network")
    _settle(analysis)
    values = {**{node: hold(node) for node in graph.nodes if node.op in HELD}, **analysis.values}
    patterns = {node: _pattern(analysis, value) for node, value in values.items()}
    return _collect(analysis, {node: pattern for node, pattern in patterns.items() if pattern})


def _settle(analysis: Analysis) -> None:
    """Merge until every activation's units lie along one dimension and every held tensor agrees."""
    classes = analysis.classes
    tensors = [v for v in analysis.values.values() if isinstance(v, Tensor) and v.dim() > 1]
    tensors += [labels for labels, _ in analysis.table.spread]
    changed = True
    while changed:
        changed = False
        for labels in tensors:
            moving = classes.varying(labels)
            if len(moving) > 1:
                roots = classes.find(labels)
                count = {d: len(roots.movedim(d, 0).flatten(1).amax(1).unique()) for d in moving}
                best = max(moving, key=lambda d: count[d])
                classes.collapse(labels, [d for d in moving if d != best], "its units overlap")
                changed = True
            elif not moving and labels.numel() > 1:
                changed |= classes.fix(labels, "all of an activation would go at once")
        changed |= analysis.table.settle()


def _pattern(analysis: Analysis, value: Any) -> Pattern:
    if isinstance(value, Held):
        return _pattern_of_view(analysis, value)
    moving = analysis.classes.varying(value) if isinstance(value, Tensor) else []
    if len(moving) != 1:
        return {}
    roots = analysis.classes.find(value)
    others = [d for d in range(value.dim()) if d != moving[0]]
    return {moving[0]: roots.amax(others) if others else roots}


def _pattern_of_view(analysis: Analysis, value: Held) -> Pattern:
    pattern = {}
    for dim, size in enumerate(value.shape):
        found = value.axis(dim) if size > 1 else None
        slices = None if found is None else analysis.table.slices.get((value.name, found[0]))
        if found is not None and slices is not None:
            pattern[dim] = analysis.classes.find(slices[found[1]])
    return pattern


def _collect(analysis: Analysis, patterns: dict[Node, Pattern]) -> Dependencies:
    """Classes of slices, gathered to groups of units that lie in the same places."""
    classes = analysis.classes
    blocked: dict[str, str] = {}
    where: dict[int, dict[tuple[str, int], list[int]]] = {}
    for (name, axis), vector in analysis.table.slices.items():
        for position, root in enumerate(classes.find(vector).tolist()):
            if root == FIXED:
                blocked.setdefault(name, classes.why(int(vector[position]))) if axis == 0 else None
            elif root != FREE:
                where.setdefault(root, {}).setdefault((name, axis), []).append(position)
    seats: dict[int, list[tuple[int, int]]] = {}
    for number, pattern in enumerate(patterns.values()):
        for labels in pattern.values():
            present, counts = labels.unique(return_counts=True)
            for root, count in zip(present.tolist(), counts.tolist(), strict=True):
                seats.setdefault(root, []).append((number, count))
    order = {node.parameter: i for i, node in enumerate(_by_use(analysis.graph))}
    gathered: dict[Any, list[int]] = {}
    for root, places in where.items():
        signature = frozenset((key, len(spots)) for key, spots in places.items())
        gathered.setdefault((signature, tuple(seats.get(root, ()))), []).append(root)
    loose = {int(r) for labels in analysis.inexact for r in classes.find(labels).unique()}
    found: list[Group] = []
    units: dict[str, Tensor] = {}
    makers: set[str] = set()
    for roots in sorted(gathered.values(), key=lambda rs: _rank(where[rs[0]], order)):
        if len(roots) < 2:
            continue
        keys = sorted(where[roots[0]], key=lambda key: (key[1] != 0, order.get(key[0], len(order)), key))
        roots.sort(key=lambda r: where[r][keys[0]])
        slices = tuple(
            Slice(*key, torch.tensor([where[r][key] for r in roots]), key in analysis.table.reads)
            for key in keys
        )
        maker = keys[0][0].rpartition(".")[0] or keys[0][0]
        name = f"{maker}[{slices[0].index.min()}]" if maker in makers else maker
        makers.add(maker)
        found.append(Group(name, len(roots), slices, exact=not loose & set(roots)))
        units[name] = torch.tensor(roots)
    return Dependencies(analysis.graph, found, blocked, patterns, units)


def _by_use(graph: Graph) -> list[Node]:
    """Held tensors in the order in which the network first reads them."""
    used = [source for node in graph.nodes for source in node.inputs if source.op in HELD]
    return list(dict.fromkeys(used))


def _rank(places: dict[tuple[str, int], list[int]], order: dict[str | None, int]) -> tuple[int, int]:
    """Groups come in the order of their first making layer, units by position."""
    first = [(order.get(name, len(order)), spots[0]) for (name, axis), spots in places.items() if axis == 0]
    return min(first, default=(len(order), 0))
