"""Alignments of two layers' units, from their correlations alone.

between: (A, B) correlations of units of one network with those of the other; first (A, A) and second (B, B)
within each. Units that never change have correlation 0 with everything.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lars_path_gram


def one_to_one(strength: np.ndarray) -> np.ndarray:
    """Partner (A,) of each unit in the matching of largest total strength; -1 without one (A > B)."""
    rows, columns = linear_sum_assignment(strength, maximize=True)
    partner = np.full(strength.shape[0], -1)
    partner[rows] = columns
    return partner


def best_partner(strength: np.ndarray) -> np.ndarray:
    """Semi-matching: the strongest partner (A,) of each unit, taken as often as it is wanted."""
    return strength.argmax(1)


def strengths(strength: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Strength (A,) of each unit's pair; 0 without a partner."""
    paired = strength[np.arange(len(partner)), np.maximum(partner, 0)]
    return np.where(partner >= 0, paired, 0.0)


def sparse_errors(
    within: np.ndarray, between: np.ndarray, examples: int, counts: Sequence[int]
) -> np.ndarray:
    """Error (B, len(counts)) of predicting each standardised unit of B by an L1-penalised map of A's.

    The whole LASSO path from the correlations (LARS). Entry k: the smallest squared error, as a share of the
    unit's variance, on the path with at most counts[k] weights that are not 0.
    """
    alive = within.diagonal() > 0
    gram = np.ascontiguousarray(within[np.ix_(alive, alive)])
    errors = np.ones((between.shape[1], len(counts)))
    for b in range(between.shape[1]):
        target = between[alive, b].copy()
        with warnings.catch_warnings():
            # units that follow one another are dropped from the path, which is what is wanted
            warnings.simplefilter("ignore", ConvergenceWarning)
            _, _, path = lars_path_gram(
                Xy=target, Gram=gram.copy(), n_samples=examples, method="lasso", max_iter=4 * max(counts)
            )
        left = 1 - 2 * target @ path + np.einsum("ip,ij,jp->p", path, gram, path)
        used = (path != 0).sum(0)
        for k, count in enumerate(counts):
            errors[b, k] = np.clip(left[used <= count].min(), 0.0, 1.0)
    return errors


def blocks(between: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spectral clusters of both networks' units together: labels (A,) and (B,).

    Affinity |between|, none within a network; eigenvectors of the normalised Laplacian, rows scaled to length 1,
    k-means. Units without any affinity get the label -1.
    """
    a, b = between.shape
    affinity = np.zeros((a + b, a + b))
    affinity[:a, a:] = np.abs(between)
    affinity[a:, :a] = affinity[:a, a:].T
    degree = affinity.sum(1)
    alive = degree > 1e-9
    labels = np.full(a + b, -1)
    count = min(count, int(alive.sum()))
    if count == 0:
        return labels[:a], labels[a:]
    scale = 1 / np.sqrt(degree[alive])
    normal = affinity[np.ix_(alive, alive)] * scale[:, None] * scale[None]
    # the largest of the normalised affinity are the smallest of the Laplacian 1 - affinity
    vectors = np.linalg.eigh(normal)[1][:, -count:]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    labels[alive] = KMeans(count, n_init=10, random_state=seed).fit_predict(vectors)
    return labels[:a], labels[a:]


def principal_cosines(first: np.ndarray, second: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Cosines of the principal angles between the spans of two sets of units (canonical correlations)."""
    values = np.linalg.svd(_whiten(first) @ between @ _whiten(second).T, compute_uv=False)
    return np.clip(values, 0.0, 1.0)


def _whiten(within: np.ndarray) -> np.ndarray:
    """Rows that turn units into orthonormal directions; directions of next to no variance are left out."""
    values, vectors = np.linalg.eigh(within)
    kept = values > 1e-6 * max(values.max(), 1e-30)
    return (vectors[:, kept] / np.sqrt(values[kept])).T


def block_overlap(
    first: np.ndarray, second: np.ndarray, between: np.ndarray, labels: tuple[np.ndarray, np.ndarray]
) -> list[dict[str, float]]:
    """Per block that has units of both: its sizes, its subspaces' overlap and its units' overlap.

    subspace: mean cosine of the principal angles. units: mean |correlation| of the best one-to-one pairs.
    """
    rows = []
    for label in sorted(set(labels[0].tolist()) & set(labels[1].tolist()) - {-1}):
        i, j = np.flatnonzero(labels[0] == label), np.flatnonzero(labels[1] == label)
        part = between[np.ix_(i, j)]
        cosines = principal_cosines(first[np.ix_(i, i)], second[np.ix_(j, j)], part)
        short = part if len(i) <= len(j) else part.T
        pairs = strengths(np.abs(short), one_to_one(np.abs(short)))
        rows.append(
            {
                "first": len(i), "second": len(j), "subspace": float(cosines.mean()), "units": float(pairs.mean()),
            }
        )  # fmt: skip
    return rows
