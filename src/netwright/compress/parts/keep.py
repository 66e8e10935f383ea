"""Which units to keep, given their scores and how much smaller the network shall be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from netwright.core.graph import Dependencies, Group, Node
from netwright.core.graph.ir import HELD
from netwright.core.graph.labels.moving import MOVING
from netwright.core.graph.labels.rules import kind

Measure = Literal["macs", "parameters", "units"]
Scope = Literal["global", "layer"]


class Sizes:
    """Predicts parameters, multiply-accumulates and units of the network that keeps so many units per group.

    Multiply-accumulates are those of weights; products of activations with each other (inside attention) are
    left out.
    """

    def __init__(self, found: Dependencies) -> None:
        self.groups = found.groups
        graph = found.graph
        held = {**graph.parameters}
        self._shapes = {name: tuple(t.shape) for name, t in held.items()}
        self._axes: dict[str, dict[int, list[tuple[str, int]]]] = {}
        for group in found.groups:
            for part in group.slices:
                if part.parameter in held:
                    axes = self._axes.setdefault(part.parameter, {})
                    axes.setdefault(part.axis, []).append((group.name, part.index.shape[1]))
        self._uses: dict[str, float] = {}
        for node in graph.nodes:
            for name in _weights(node):
                self._uses[name] = (
                    self._uses.get(name, 0.0) + _positions(node, self._shapes[name]) / graph.batch
                )

    def measure(self, kept: Mapping[str, int], what: Measure) -> float:
        """kept: units per group."""
        if what == "units":
            return float(sum(kept[group.name] for group in self.groups))
        gone = {group.name: group.size - kept[group.name] for group in self.groups}
        total = 0.0
        for name, shape in self._shapes.items():
            sizes = [
                n - sum(gone[group] * k for group, k in self._axes.get(name, {}).get(axis, []))
                for axis, n in enumerate(shape)
            ]
            total += math.prod(sizes) * (1.0 if what == "parameters" else self._uses.get(name, 0.0))
        return total


def _weights(node: Node) -> list[str]:
    """Names of the weights that a node multiplies with, seen through views."""
    names = []
    if kind(node) in _MULTIPLYING:
        for source in node.inputs:
            while source.op not in HELD and kind(source) in MOVING and source.inputs:
                source = source.inputs[0]
            if source.op == "parameter" and len(source.shape) > 1:
                names.append(source.parameter or "")
    return names


_MULTIPLYING = {
    "linear", "matmul", "mm", "bmm", "addmm", "einsum", "lstm", "gru", "rnn_tanh", "rnn_relu",
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
}  # fmt: skip


def _positions(node: Node, shape: tuple[int, ...]) -> float:
    """How often each weight is used in one pass."""
    name = kind(node)
    if name.startswith("conv_transpose"):
        value = node.inputs[0].shape
        return math.prod(value) / value[-len(shape) + 1]
    if name.startswith("conv"):
        return math.prod(node.shape) / node.shape[-len(shape) + 1]
    if not node.shape:  # recurrent: once for each step
        value = node.inputs[0].shape
        return math.prod(value) / value[-1]
    return math.prod(node.shape) / node.shape[-1]


def choose(
    sizes: Sizes,
    scores: Mapping[str, Tensor],
    target: float,
    what: Measure,
    scope: Scope,
    least: float,
    round_to: int,
) -> dict[str, Tensor]:
    """Units to keep per group, so that `what` comes down to `target` as nearly as the limits allow.

    scope: 'global' removes the lowest scores wherever they are, 'layer' the same share of every group.
    least: share of each group's units that stays in any case. round_to: kept counts are multiples of this in
    groups of at least twice as many units.
    """
    ranks = _removal_order(sizes.groups, scores, scope)
    low, high = 0, sum(group.size for group in sizes.groups)
    while low < high:  # the smallest number of removals that reaches the target
        middle = (low + high) // 2
        counts = _counts(sizes.groups, ranks[:middle], least, round_to)
        if sizes.measure(counts, what) <= target:
            high = middle
        else:
            low = middle + 1
    counts = _counts(sizes.groups, ranks[:low], least, round_to)
    return {
        group.name: scores[group.name].argsort(descending=True)[: counts[group.name]].sort().values
        for group in sizes.groups
    }


def _removal_order(groups: list[Group], scores: Mapping[str, Tensor], scope: Scope) -> list[str]:
    """The groups' names, one for each unit, in the order in which units go."""
    keys, names = [], []
    for group in groups:
        if scope == "global":
            keys.append(scores[group.name].double())
        else:  # evenly through every group
            keys.append((torch.arange(group.size, dtype=torch.float64) + 0.5) / group.size)
        names += [group.name] * group.size
    return [names[i] for i in torch.cat(keys).argsort(stable=True).tolist()]


def _counts(groups: list[Group], removals: list[str], least: float, round_to: int) -> dict[str, int]:
    """Units kept per group after these removals, within the limits."""
    gone: dict[str, int] = {}
    for name in removals:
        gone[name] = gone.get(name, 0) + 1
    counts = {}
    for group in groups:
        count = max(group.size - gone.get(group.name, 0), 1, math.ceil(least * group.size))
        if group.size >= 2 * round_to and count < group.size:
            count = min(group.size, max(round_to, round_to * round(count / round_to)))
        counts[group.name] = count
    return counts
