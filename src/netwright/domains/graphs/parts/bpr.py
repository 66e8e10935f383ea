"""Bayesian personalised ranking: triples (user, touched item, untouched item), their loss, the loop over epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from netwright.core import progress
from netwright.core.budget import Budget
from netwright.core.errors import BadInput


class Triples(NamedTuple):
    """users, positives, negatives: (B,) int64 each; items are counted from 0."""

    users: Tensor
    positives: Tensor
    negatives: Tensor


def sample(matrix: sparse.csr_array, count: int, rng: np.random.Generator) -> Triples:
    """Users uniform (those who can have a negative), then one positive and one non-positive of theirs, uniform."""
    n_items = matrix.shape[1]
    degree = np.diff(matrix.indptr)
    able = np.flatnonzero((degree > 0) & (degree < n_items))
    if not able.size:
        raise BadInput("every user has touched no item or all items; there is nothing to rank")
    users = able[rng.integers(0, len(able), count)]
    positives = matrix.indices[matrix.indptr[users] + (rng.random(count) * degree[users]).astype(np.int64)]
    keys = np.repeat(np.arange(matrix.shape[0]), degree) * n_items + matrix.indices
    negatives = rng.integers(0, n_items, count)
    wrong = np.arange(count)
    while wrong.size:
        pairs = users[wrong] * n_items + negatives[wrong]
        at = np.minimum(np.searchsorted(keys, pairs), len(keys) - 1)
        wrong = wrong[keys[at] == pairs]
        negatives[wrong] = rng.integers(0, n_items, len(wrong))
    return Triples(*(torch.from_numpy(np.asarray(a, dtype=np.int64)) for a in (users, positives, negatives)))


def bpr_loss(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """mean softplus(s(u, j) - s(u, i)) of embeddings (B, d)."""
    return F.softplus((user * (negative - positive)).sum(1)).mean()


def train(
    matrix: sparse.csr_array,
    step: Callable[[Triples], float],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    budget: Budget | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Run `step` on batches of triples, as many per epoch as there are interactions. Mean loss of each epoch.

    The budget ends it at the next batch; on_epoch hears (epochs done, mean loss).
    """
    rng = np.random.default_rng(seed)
    meter = (budget or Budget()).start()
    losses: list[float] = []
    for epoch in range(epochs):
        triples = sample(matrix, matrix.nnz, rng)
        total, seen = 0.0, 0
        for start in range(0, matrix.nnz, batch_size):
            if meter.exhausted:
                break
            batch = Triples(*(t[start : start + batch_size] for t in triples))
            n = len(batch.users)
            total, seen = total + step(batch) * n, seen + n
            meter.spend(samples=n, epochs=n / matrix.nnz)
        if seen:
            losses.append(total / seen)
            progress.step(epoch + 1, epochs, f"epoch {epoch + 1}, loss {losses[-1]:.4f}")
        if seen == matrix.nnz and on_epoch is not None:
            on_epoch(epoch + 1, losses[-1])
        if meter.exhausted:
            break
    return losses
