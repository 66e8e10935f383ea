"""A predictor of one objective from integer codes, chosen anew at each fit by cross-validated percentage error."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.svm import SVR


def one_hot(codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Codes (N, genes) -> (N, sum of sizes) of 0 and 1; a gene without a value (a negative code) has no 1."""
    return np.hstack([np.vstack([np.eye(size), np.zeros(size)])[codes[:, i]] for i, size in enumerate(sizes)])


def candidates() -> list[Ridge | SVR]:
    """The grid: ridge regression, and support vectors with a Gaussian kernel and no insensitive tube."""
    ridges = [Ridge(alpha=alpha) for alpha in (0.1, 1.0, 10.0)]
    return [*ridges, *(SVR(kernel="rbf", C=c, epsilon=0.0, max_iter=100_000) for c in (1.0, 10.0, 100.0))]


@dataclass
class Surrogate:
    """fit, then predict. `error_` is the winner's cross-validated mean percentage error, `model_` the winner."""

    folds: int = 5
    seed: int = 0

    def fit(self, x: np.ndarray, y: np.ndarray) -> Surrogate:
        """x: (N, F); y: (N,), divided by a power of ten so that the grid's constants suit any unit."""
        top = np.abs(y).max()
        self.scale_ = 10.0 ** np.ceil(np.log10(top)) if top > 0 else 1.0
        target = y / self.scale_
        cut = KFold(min(self.folds, len(y)), shuffle=True, random_state=self.seed)
        # a label near zero would otherwise decide alone what a percentage of it is
        weight = np.maximum(np.abs(target), 1e-2 * np.abs(target).mean() + 1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            errors = [
                float(np.mean(np.abs(cross_val_predict(m, x, target, cv=cut) - target) / weight))
                for m in candidates()
            ]
            self.error_ = min(errors)
            self.model_ = candidates()[int(np.argmin(errors))].fit(x, target)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.model_.predict(x) * self.scale_
