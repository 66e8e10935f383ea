"""What the suite must be told of some methods: settings that keep them small, and data for those of a domain.

A new Transform, Analysis, Explainer, Verifier, Searcher, Predictor or Model needs no line here, unless its own defaults
(not its budget) make it slow. A new Estimator or Simulator needs one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

SETTINGS: dict[str, dict[str, Any]] = {
    "linas": {"population": 8, "measurements": 24, "evaluations": 200},
    "linas-pruning": {"population": 4, "measurements": 8, "evaluations": 100},
    "densify": {"users": 30},
}


def interactions() -> sparse.csr_array:
    """Users (24) and items (16) in two circles that hardly meet."""
    rng = np.random.default_rng(0)
    same = np.arange(24)[:, None] % 2 == np.arange(16)[None] % 2
    return sparse.csr_array((rng.random((24, 16)) < np.where(same, 0.6, 0.05)).astype(np.float32))


def pairs(held: sparse.csr_array) -> np.ndarray:
    return np.argwhere(np.ones(held.shape))


# the package of an Estimator -> (what it is fitted on, what it then predicts from that)
ESTIMATORS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "netwright.domains.graphs": (interactions, pairs),
}
