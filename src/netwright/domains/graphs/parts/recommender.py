"""What every recommender here shares: scikit-learn's manners, recommendation and full-ranking score."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from netwright.core.errors import BadInput
from netwright.domains.graphs.parts.interactions import check
from netwright.domains.graphs.parts.ranking import Ranking, full_ranking, top_items


class Recommender(BaseEstimator):
    """`fit` sets `interactions_` (users, items); a subclass gives `scores`."""

    interactions_: sparse.csr_array

    def scores(self, users: np.ndarray) -> Tensor:
        """Scores of all items for these users: (B, items), higher is better."""
        raise NotImplementedError

    def recommend(self, user: int | np.ndarray, k: int = 20) -> np.ndarray:
        """The k best items that the user has not touched, best first: (k,) for one user, (B, k) for several."""
        users = self._known(user)
        if not 1 <= k <= self.interactions_.shape[1]:
            raise BadInput(f"k must lie in [1, {self.interactions_.shape[1]}], got {k}")
        best = top_items(self.scores(users), self.interactions_, users, k).cpu().numpy()
        return best[0] if np.ndim(user) == 0 else best

    def predict(self, pairs: np.ndarray) -> np.ndarray:
        """Scores (P,) of pairs (P, 2) of user and item."""
        pairs = np.asarray(pairs)
        users, row = np.unique(self._known(pairs[:, 0]), return_inverse=True)
        return self.scores(users)[row, pairs[:, 1]].cpu().numpy()

    def score(self, test: sparse.csr_array) -> float:
        """Recall@20 by full ranking."""
        return self.rank(test).recall

    def rank(self, test: sparse.csr_array, k: int = 20) -> Ranking:
        """Full-ranking metrics on test interactions, training positives masked."""
        check_is_fitted(self, "interactions_")
        return full_ranking(self.scores, self.interactions_, check(test, "test interactions"), k)

    def _known(self, user: int | np.ndarray) -> np.ndarray:
        check_is_fitted(self, "interactions_")
        users = np.atleast_1d(np.asarray(user))
        if users.dtype.kind not in "iu" or users.min() < 0 or users.max() >= self.interactions_.shape[0]:
            raise BadInput(f"users are numbered from 0 to {self.interactions_.shape[0] - 1}")
        return users.astype(np.int64)
