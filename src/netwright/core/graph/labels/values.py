"""What flows through the graph during dependency analysis: labels of activations, and tensors the network holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from netwright.core.graph.ir import Node
from netwright.core.graph.labels.classes import FIXED, Classes


@dataclass(frozen=True)
class Held:
    """A parameter, buffer or constant, perhaps viewed, sliced or permuted on its way to where it is used.

    index: flat positions in the tensor, of the shape of the view; None: the tensor as it is.
    """

    name: str
    full: tuple[int, ...]
    index: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.full if self.index is None else tuple(self.index.shape)

    def positions(self) -> Tensor:
        return torch.arange(math.prod(self.full)).view(self.full) if self.index is None else self.index

    def moved(self, move: Callable[[Tensor], Any]) -> Any:
        """After an operator that only moves elements (which may give several tensors)."""
        result = move(self.positions())
        if isinstance(result, (list, tuple)):
            return [Held(self.name, self.full, part) for part in result]
        return Held(self.name, self.full, result)

    def axis(self, dim: int) -> tuple[int, Tensor] | None:
        """Which axis of the tensor runs along `dim` of the view, and the positions on it; None if none does."""
        if self.index is None:
            return dim % len(self.full), torch.arange(self.full[dim])
        index = self.index.movedim(dim, 0).reshape(self.index.shape[dim], -1)
        found = None
        for axis, coordinate in enumerate(torch.unravel_index(index, self.full)):
            if bool((coordinate != coordinate[:1]).any()):  # changes along dim
                if found is not None or bool((coordinate != coordinate[:, :1]).any()):
                    return None
                found = axis, coordinate[:, 0]
        return found


class Table:
    """Labels of every slice of every held tensor: one per index of each axis, made when first asked for."""

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.slices: dict[tuple[str, int], Tensor] = {}
        self.reads: set[tuple[str, int]] = set()  # axes along which a weight reads units, not makes them
        self.opaque: dict[str, str] = {}
        self.spread: list[tuple[Tensor, Held]] = []

    def axis(self, name: str, axis: int, size: int) -> Tensor:
        key = name, axis
        if key not in self.slices:
            self.slices[key] = self.classes.fresh(size)
        return self.slices[key]

    def along(self, held: Held, dim: int, reads: bool = False) -> Tensor | None:
        """Labels (n,) of the slices of a held tensor along a dimension of its view."""
        found = held.axis(dim)
        if found is None:
            return None
        axis, positions = found
        if reads:
            self.reads.add((held.name, axis))
        return self.axis(held.name, axis, held.full[axis])[positions]

    def refuse(self, held: Held, reason: str) -> None:
        """This tensor is used in a way that we cannot follow: it keeps its shape."""
        self.opaque.setdefault(held.name, reason)

    def labels(self, held: Held) -> Tensor:
        """A held tensor as an activation: labels of its shape, tied to its slices."""
        shape = held.shape
        wide = [d for d, n in enumerate(shape) if n > 1]
        if not wide:
            return torch.full(shape, FIXED)
        if len(wide) == 1:
            vector = self.along(held, wide[0])
            if vector is None:
                self.refuse(held, "its elements are rearranged")
                return torch.tensor(FIXED).expand(shape)
            return vector.view([-1 if d == wide[0] else 1 for d in range(len(shape))])
        # several axes: which of them the units run along shows later (see `settle`)
        _, inverse = held.positions().unique(return_inverse=True)
        labels = self.classes.fresh(int(inverse.max()) + 1)[inverse]
        self.spread.append((labels, held))
        return labels

    def settle(self) -> bool:
        """Tie what `labels` left open to the slices. True if any class changed."""
        changed = False
        for labels, held in self.spread:
            moving = self.classes.varying(labels)
            found = held.axis(moving[0]) if len(moving) == 1 else None
            if moving and found is None:
                self.refuse(held, "its elements are rearranged")
                continue
            if found is None:
                changed |= self.classes.fix(labels, f"all of '{held.name}' would go at once")
            else:
                others = [d for d in range(labels.dim()) if d != moving[0]]
                along, vector = self.classes.find(labels).amax(others), self.along(held, moving[0])
                assert vector is not None
                changed |= self.classes.merge(along, vector, f"'{held.name}' is used elsewhere")
            for axis, size in enumerate(held.full):
                if size > 1 and (found is None or axis != found[0]):
                    vector = self.axis(held.name, axis, size)
                    changed |= self.classes.fix(vector, f"'{held.name}' has no units along this axis")
        for (name, _), vector in list(self.slices.items()):
            if name in self.opaque:
                changed |= self.classes.fix(vector, f"'{name}': {self.opaque[name]}")
        return changed


def fixed(node: Node) -> Tensor:
    """Labels of a result whose elements can never be removed."""
    return torch.tensor(FIXED).expand(node.shape)


def flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flat(item)]
    return [value]
