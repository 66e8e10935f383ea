"""Equivalence classes of labels: which elements of which tensors must stay or go together.

Every element of an activation carries a label (an int64 tensor of the activation's shape); labels that turn
out to belong together are merged. Two labels are special: FREE joins anything (padding), and FIXED marks what
can never be removed; whatever is merged with FIXED is fixed too, and remembers why.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

FREE, FIXED = 0, 1


def shrink(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors (one shape) without the repetition along dimensions that all of them merely expand."""
    for dim in range(tensors[0].dim()):
        if tensors[0].shape[dim] > 1 and all(t.stride(dim) == 0 for t in tensors):
            tensors = tuple(t.narrow(dim, 0, 1) for t in tensors)
    return tensors


class Classes:
    """Union-find over labels, merged in whole tensors at a time."""

    def __init__(self) -> None:
        self._root = torch.tensor([FREE, FIXED])
        self._why = torch.zeros(2, dtype=torch.int64)
        self._reasons = ["not removable"]

    def fresh(self, count: int) -> Tensor:
        """New labels (count,), each a class of its own."""
        start = len(self._root)
        labels = torch.arange(start, start + count)
        self._root = torch.cat([self._root, labels])
        self._why = torch.cat([self._why, torch.zeros(count, dtype=torch.int64)])
        return labels

    def find(self, labels: Tensor) -> Tensor:
        """The representative of each label's class; same shape, repetition along dimensions preserved."""
        (small,) = shrink(labels)
        return self._root[small].expand(labels.shape)

    def merge(self, a: Tensor, b: Tensor, reason: str) -> bool:
        """Join the classes of a and b, element by element (shapes broadcast). True if anything changed.

        reason: told of those that become fixed by it.
        """
        a, b = shrink(*torch.broadcast_tensors(a, b))
        ra, rb = self._root[a].flatten(), self._root[b].flatten()
        differ = (ra != rb) & (ra != FREE) & (rb != FREE)
        if not bool(differ.any()):
            return False
        count = len(self._root)
        codes = (ra[differ] * count + rb[differ]).unique()  # each pair once
        pairs = torch.stack([codes // count, codes % count])
        members, inverse = pairs.flatten().unique(return_inverse=True)
        left, right = inverse.view(2, -1).numpy()
        links = coo_matrix((np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(members),) * 2)
        parts = torch.from_numpy(connected_components(links, directed=False)[1]).long()
        first = torch.full((int(parts.max()) + 1,), len(self._root)).scatter_reduce(0, parts, members, "amin")
        before = self._root
        target = torch.arange(len(self._root))
        target[members] = first[parts]
        self._root = target[before]
        fixed_now = (self._root == FIXED) & (before != FIXED)
        if bool(fixed_now.any()):
            self._why[fixed_now] = len(self._reasons)
            self._reasons.append(reason)
        return True

    def fix(self, labels: Tensor, reason: str) -> bool:
        """These can never be removed. True if that is news."""
        return self.merge(labels, torch.tensor(FIXED), reason)

    def why(self, label: int) -> str:
        """Why this label is fixed."""
        return self._reasons[int(self._why[label])]

    def varying(self, labels: Tensor) -> list[int]:
        """Dimensions along which the class changes. FREE elements do not count."""
        (roots,) = shrink(self.find(labels))
        found = []
        for dim in range(roots.dim()):
            if roots.shape[dim] > 1:
                filled = torch.where(roots == FREE, roots.amax(dim, keepdim=True), roots)
                if bool((filled != filled.narrow(dim, 0, 1)).any()):
                    found.append(dim)
        return found

    def collapse(self, labels: Tensor, dims: Sequence[int], reason: str) -> Tensor:
        """Merge along these dimensions; what is left (of size 1 along them)."""
        if not dims:
            return self.find(labels)
        (roots,) = shrink(self.find(labels))
        top = roots.amax(tuple(dims), keepdim=True)
        self.merge(roots, top, reason)
        size = [1 if d in {i % labels.dim() for i in dims} else n for d, n in enumerate(labels.shape)]
        return self.find(top).expand(size)
