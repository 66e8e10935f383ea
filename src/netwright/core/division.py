"""Where the rows of the three splits come from: validation and test rows are never cut from rows called train.

Both given: they stay as they are. One of the two given: it is halved. Neither given: there is one pool, which we cut.
The same seed gives the same division, whatever else is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from netwright.core.errors import BadInput

# How the three splits came about: as they were given; one of val and test given and halved; cut by us from one pool,
# so that a network which was trained elsewhere may have seen any of it
Division = Literal["given", "halved", "ours"]

FRACTION = 0.15  # of one pool, for validation and for test each


def divide(
    targets: Mapping[str, Tensor], seed: int, stratify: bool
) -> tuple[dict[str, tuple[str, Tensor]], Division]:
    """Per split, the given role that its rows come from with their indices there; and how that came about.

    targets: (N, ...) of 'train' and of whichever of 'val' and 'test' are given. stratify: by class.
    """
    held = [role for role in ("val", "test") if role in targets]
    if len(held) == 2:
        return {role: (role, torch.arange(len(y))) for role, y in targets.items()}, "given"
    if held:
        val, test = halves(targets[held[0]], seed, stratify)
        whole = torch.arange(len(targets["train"]))
        return {"train": ("train", whole), "val": (held[0], val), "test": (held[0], test)}, "halved"
    parts = split_indices(targets["train"], [FRACTION, FRACTION], seed, stratify)
    return {role: ("train", part) for role, part in zip(("train", "val", "test"), parts, strict=True)}, "ours"


def halves(targets: Tensor, seed: int, stratify: bool) -> tuple[Tensor, Tensor]:
    """Indices of two halves, whose sizes differ by one at most, and so those of each class where stratified."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(members) for members in _groups(targets, stratify)])
    return torch.from_numpy(np.sort(order[0::2])), torch.from_numpy(np.sort(order[1::2]))


def split_indices(targets: Tensor, fractions: Sequence[float], seed: int, stratify: bool) -> list[Tensor]:
    """Indices of the remainder, then of one part per fraction. Stratified by class where there are classes."""
    rng = np.random.default_rng(seed)
    pools: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for members in _groups(targets, stratify):
        order, start = rng.permutation(members), 0
        for i, fraction in enumerate(fractions):
            count = round(fraction * len(members))
            pools[i + 1].append(order[start : start + count])
            start += count
        pools[0].append(order[start:])
    return [torch.from_numpy(np.sort(np.concatenate(pool))) for pool in pools]


def _groups(targets: Tensor, stratify: bool) -> list[np.ndarray]:
    """Row numbers, class by class where stratified."""
    y = targets.numpy()
    if stratify and y.ndim == 1 and len(y):
        return [np.flatnonzero(y == c) for c in np.unique(y)]
    return [np.arange(len(y))]


def cut(indices: Tensor, seed: int, limit: int | None) -> Tensor:
    """At most `limit` of the indices, chosen by the seed, in their old order; a smaller limit takes a subset of
    what a larger one takes."""
    if limit is None:
        return indices
    if int(limit) < 1:
        raise BadInput(f"limit must be at least 1, got {limit}")
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))
    return indices[order[: int(limit)].sort().values]
