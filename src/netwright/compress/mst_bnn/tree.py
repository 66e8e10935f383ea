"""Which output channel is computed from which: spanning trees over kernels of signs, and how deep they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Tree:
    """parent (O,): of each channel, the root's is itself. order (O,): breadth first, each behind its parent. depth: the
    edges from the root to the channel that is farthest."""

    parent: Tensor
    order: Tensor
    depth: int

    @property
    def root(self) -> int:
        return int(self.order[0])

    def edges(self) -> tuple[Tensor, Tensor]:
        """Parents and children (O - 1,), in the order in which they are computed."""
        children = self.order[1:]
        return self.parent[children], children


def distances(signs: Tensor) -> Tensor:
    """How many of n signs differ, for all pairs of rows (O, n): (O, O) int64."""
    rows = signs.double()
    return ((rows.shape[1] - rows @ rows.t()) / 2).round().long()


def minimum(between: Tensor) -> Tree:
    """A minimum spanning tree of distances (O, O), seen from its centre, so that its longest chain is as short as can
    be. Among edges of the same length those nearer to the channel that is least far from all others are taken."""
    far, count = between.numpy(), len(between)
    start = int(far.sum(1).argmin())
    parent, depth = np.full(count, start), np.zeros(count, int)
    length, reached = far[start].astype(float), np.zeros(count, bool)
    level = np.ones(count)  # the depth that a channel would have, by its shortest edge
    reached[start] = True
    for _ in range(count - 1):
        open_ = np.where(reached, np.inf, length)
        nearest = open_ == open_.min()
        new = int(np.where(nearest, level, np.inf).argmin())
        reached[new], depth[new] = True, level[new]
        better = (far[new] < length) | ((far[new] == length) & (depth[new] + 1 < level))
        better &= ~reached
        length[better], parent[better], level[better] = far[new][better], new, depth[new] + 1
    return rooted([(int(parent[c]), c) for c in range(count) if c != start], count)


def at_random(count: int, seed: int) -> Tree:
    """Each channel but the first, in a random order, hangs on one before it: what a minimum tree must beat."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator).tolist()
    pick = lambda i: int(torch.randint(i, (1,), generator=generator))
    return rooted([(order[pick(i)], order[i]) for i in range(1, count)], count)


def rooted(edges: list[tuple[int, int]], count: int) -> Tree:
    """The tree of these edges, seen from its centre: half way along the longest path through it."""
    beside: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        beside[a].append(b)
        beside[b].append(a)
    one = _walk(beside, 0)[0][-1]
    order, parent, level = _walk(beside, one)
    centre = order[-1]
    for _ in range(level[centre] // 2):
        centre = parent[centre]
    order, parent, level = _walk(beside, centre)
    return Tree(torch.tensor(parent), torch.tensor(order), level[order[-1]])


def _walk(beside: list[list[int]], start: int) -> tuple[list[int], list[int], list[int]]:
    """Breadth first: the order, and of each channel its parent and its depth."""
    parent, level, order = [start] * len(beside), [-1] * len(beside), [start]
    level[start] = 0
    for at in order:  # grows as it is read
        for other in beside[at]:
            if level[other] < 0:
                parent[other], level[other] = at, level[at] + 1
                order.append(other)
    return order, parent, level


@dataclass(frozen=True)
class Plan:
    """How the outputs of a layer are computed from one another: the root in full, then, along the tree,

        y[child] = y[parent] + 2 * (sum of x at plus[child] - sum of x at minus[child]),

    the positions where the two kernels differ and the child's sign is +, or -.

    positions (sum of d,) int64: those of every child in the tree's order, plus before minus; starts, middles, ends
    (O,): of the child in that order (the root's are its whole kernel).
    """

    tree: Tree
    positions: Tensor
    starts: Tensor
    middles: Tensor
    ends: Tensor
    inputs: int

    @property
    def operations(self) -> int:
        """Additions of signs for one place of the output: n for the root, d for every edge."""
        return len(self.positions)

    @property
    def direct(self) -> int:
        """The same without reuse: n for every channel."""
        return len(self.tree.parent) * self.inputs


def plan(signs: Tensor, tree: Tree) -> Plan:
    """signs: -1 and 1 (O, n)."""
    positions, starts, middles, ends = [], [], [], []
    at = 0
    for channel in tree.order.tolist():
        parent = int(tree.parent[channel])
        own = signs[channel]
        differ = torch.ones_like(own, dtype=torch.bool) if parent == channel else own != signs[parent]
        plus, minus = (differ & (own > 0)).nonzero()[:, 0], (differ & (own < 0)).nonzero()[:, 0]
        positions += [plus, minus]
        starts.append(at)
        middles.append(at + len(plus))
        at += len(plus) + len(minus)
        ends.append(at)
    return Plan(
        tree, torch.cat(positions), *(torch.tensor(t) for t in (starts, middles, ends)), inputs=signs.shape[1]
    )
