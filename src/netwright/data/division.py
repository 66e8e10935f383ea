"""Dividing data into splits: the same seed gives the same division, whatever else is asked."""

from __future__ import annotations

import torch
from torch import Tensor

from netwright.core.errors import BadInput
from netwright.core.task import split_indices


def divide(targets: Tensor, seed: int, fraction: float, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Indices of the training and the validation part (`fraction`, stratified), the first cut to `limit`.

    A smaller limit takes a subset of what a larger one takes, and leaves the validation part as it is.
    """
    train, val = split_indices(targets, [fraction], seed, stratify=not targets.is_floating_point())
    return cut(train, seed, limit), val


def cut(indices: Tensor, seed: int, limit: int | None) -> Tensor:
    """At most `limit` of the indices, chosen by the seed, in their old order."""
    if limit is None:
        return indices
    if int(limit) < 1:
        raise BadInput(f"limit must be at least 1, got {limit}")
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))
    return indices[order[: int(limit)].sort().values]
