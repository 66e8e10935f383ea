"""What recommenders are fitted on: users (24) and items (16) in two circles that hardly meet."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def data() -> sparse.csr_array:
    """Interactions."""
    rng = np.random.default_rng(0)
    same = np.arange(24)[:, None] % 2 == np.arange(16)[None] % 2
    return sparse.csr_array((rng.random((24, 16)) < np.where(same, 0.6, 0.05)).astype(np.float32))


def asked(held: sparse.csr_array) -> np.ndarray:
    """All pairs of user and item."""
    return np.argwhere(np.ones(held.shape))
