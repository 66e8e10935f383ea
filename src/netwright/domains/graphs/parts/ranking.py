"""Full ranking: every item that a user has not touched in training is a candidate. No sampled metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from netwright.core.errors import BadInput

Scores = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class Ranking:
    """Means over the users who have test items; `users` says how many those are."""

    recall: float
    ndcg: float
    precision: float
    users: int
    k: int


def top_items(scores: Tensor, seen: sparse.csr_array, users: np.ndarray, k: int) -> Tensor:
    """The k best items (B, k) of these users, best first, those in `seen` left out. Overwrites `scores` (B, I)."""
    rows = seen[users]
    scores[torch.from_numpy(np.repeat(np.arange(len(users)), np.diff(rows.indptr))),
           torch.from_numpy(rows.indices.astype(np.int64))] = -torch.inf  # fmt: skip
    return scores.topk(k, dim=1).indices


def full_ranking(
    scores: Scores, train: sparse.csr_array, test: sparse.csr_array, k: int = 20, batch: int = 1024
) -> Ranking:
    """Recall@k, NDCG@k and precision@k with training positives masked.

    scores: users (B,) -> scores of all items (B, I). Recall divides by all test items of the user (as the LightGCN
    code does, not by min(k, ...)); NDCG has binary gains and the ideal ranking of min(k, test items) hits.
    """
    if train.shape != test.shape:
        raise BadInput(f"training and test interactions differ in shape: {train.shape} and {test.shape}")
    if k > train.shape[1]:
        raise BadInput(f"k = {k} is more than the {train.shape[1]} items")
    wanted = np.diff(test.indptr)
    users = np.flatnonzero(wanted)
    if not users.size:
        raise BadInput("no user has test items")
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    keys = np.repeat(np.arange(test.shape[0]), wanted) * test.shape[1] + test.indices
    recall, ndcg, precision = [], [], []
    for start in range(0, len(users), batch):
        part = users[start : start + batch]
        best = top_items(scores(part), train, part, k).cpu().numpy()
        hits = np.isin(part[:, None] * test.shape[1] + best, keys)
        recall.append(hits.sum(1) / wanted[part])
        precision.append(hits.mean(1))
        ndcg.append((hits * discount).sum(1) / ideal[np.minimum(wanted[part], k)])
    mean = lambda parts: float(np.concatenate(parts).mean())
    return Ranking(mean(recall), mean(ndcg), mean(precision), len(users), k)
