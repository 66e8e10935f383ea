"""The recommenders without embeddings that every learned one must face: popularity, item neighbours, EASE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from netwright.core.errors import NotApplicable
from netwright.domains.graphs.parts.interactions import check
from netwright.domains.graphs.parts.recommender import Recommender


@dataclass(repr=False, eq=False)
class Popularity(Recommender):
    """Everybody gets the items with most training interactions."""

    def fit(self, X: sparse.csr_array, y: None = None) -> Popularity:
        self.interactions_ = check(X)
        self.counts_ = torch.from_numpy(np.asarray(self.interactions_.sum(0), dtype=np.float32))
        return self

    def scores(self, users: np.ndarray) -> Tensor:
        return self.counts_.repeat(len(users), 1)


@dataclass(repr=False, eq=False)
class ItemKNN(Recommender):
    """Cosine similarity of items over their users, the `neighbours` strongest kept per item, `shrink` added below."""

    neighbours: int = 100
    shrink: float = 10.0

    def fit(self, X: sparse.csr_array, y: None = None) -> ItemKNN:
        self.interactions_ = check(X)
        matrix = self.interactions_
        overlap = sparse.csr_array(matrix.T @ matrix)
        norm = np.sqrt(overlap.diagonal())
        rows = np.repeat(np.arange(overlap.shape[0]), np.diff(overlap.indptr))
        value = overlap.data / (norm[rows] * norm[overlap.indices] + self.shrink)
        value[rows == overlap.indices] = 0.0
        order = np.lexsort((-value, rows))
        rank = np.arange(len(order)) - np.repeat(overlap.indptr[:-1], np.diff(overlap.indptr))
        kept = order[(rank < self.neighbours) & (value[order] > 0)]
        self.similarity_ = sparse.csr_array(
            (value[kept], (rows[kept], overlap.indices[kept])), shape=overlap.shape
        )
        return self

    def scores(self, users: np.ndarray) -> Tensor:
        return torch.from_numpy((self.interactions_[users] @ self.similarity_.T).toarray().astype(np.float32))


@dataclass(repr=False, eq=False)
class EASE(Recommender):
    """Embarrassingly shallow autoencoder (Steck, 2019; arXiv 1905.03375): the closed-form item-to-item regression
    with zero diagonal, B = I - P / diag(P), P = (X'X + l2 I)^-1. Dense in the items, so refused above `limit`."""

    l2: float = 250.0
    limit: int = 20_000

    def fit(self, X: sparse.csr_array, y: None = None) -> EASE:
        matrix = check(X)
        items = matrix.shape[1]
        if items > self.limit:
            raise NotApplicable(f"EASE inverts an items x items matrix; {items} items are over {self.limit}")
        gram = (matrix.T @ matrix).toarray().astype(np.float64)
        gram[np.diag_indices(items)] += self.l2
        inverse = np.linalg.inv(gram)
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        self.interactions_, self.weights_ = matrix, weights.astype(np.float32)
        return self

    def scores(self, users: np.ndarray) -> Tensor:
        return torch.from_numpy(self.interactions_[users] @ self.weights_)
