"""How received power falls with distance: power laws joined piece by piece, with or without a bounded near field."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from netwright.core.errors import BadInput


@dataclass(frozen=True)
class PathLoss:
    """Gain A_k r^-slopes[k] for r between breaks[k-1] and breaks[k], continuous, 1 at r = 1.

    slopes: exponents, near field first; breaks: distances where the next one begins, one fewer. near: below this
    distance the gain stays what it is there (0: singular at the station).
    """

    slopes: tuple[float, ...] = (4.0,)
    breaks: tuple[float, ...] = ()
    near: float = 0.0

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0.0, *self.breaks), self.breaks, strict=False))
        if not self.slopes or len(self.breaks) != len(self.slopes) - 1 or not rising:
            raise BadInput(
                f"{len(self.slopes)} slopes need one break fewer, rising from above 0; got {self.breaks}"
            )
        if min(self.slopes) <= 0 or self.near < 0:
            raise BadInput("slopes must be positive and the near field not negative")

    @property
    def tail_index(self) -> float:
        """Index of the tail of r -> gain for a point uniform in a disc: 2 / slope at 0, infinite when bounded."""
        return np.inf if self.near > 0 else 2 / self.slopes[0]

    def log_gain(self, distance: np.ndarray) -> np.ndarray:
        """Natural logarithm of the gain."""
        r = np.maximum(distance, self.near)
        piece = np.searchsorted(self.breaks, r)
        with np.errstate(divide="ignore"):
            return self._offsets()[piece] - np.asarray(self.slopes)[piece] * np.log(r)

    def distance(self, log_gain: np.ndarray) -> np.ndarray:
        """The largest distance at which the gain is at least this; 0 where no distance gives it."""
        knots = self.log_gain(np.asarray(self.breaks)) if self.breaks else np.empty(0)
        piece = len(knots) - np.searchsorted(knots[::-1], log_gain, side="left")
        r = np.exp((self._offsets()[piece] - log_gain) / np.asarray(self.slopes)[piece])
        return np.where(r < self.near, 0.0, r)

    def beyond(self, radius: float) -> float:
        """Integral of gain over the plane outside a disc; infinite for a last slope of at most 2."""
        edges = [radius, *(b for b in self.breaks if b > radius), np.inf]
        total = 0.0
        if radius < self.near:
            inside = min(self.near, edges[-1])
            total += np.pi * (inside**2 - radius**2) * float(np.exp(self.log_gain(np.array(self.near))))
            edges = [self.near, *(b for b in self.breaks if b > self.near), np.inf]
        for low, high in pairwise(edges):
            k = int(np.searchsorted(self.breaks, low, side="right"))
            slope, scale = self.slopes[k], float(np.exp(self._offsets()[k]))
            if high == np.inf and slope <= 2:
                return np.inf
            at = lambda r, s=slope: 0.0 if r == np.inf else (np.log(r) if s == 2 else r ** (2 - s) / (2 - s))
            total += 2 * np.pi * scale * (at(high) - at(low))
        return total

    def _offsets(self) -> np.ndarray:
        """log A_k, so that pieces meet at the breaks and the gain is 1 at distance 1."""
        offsets = [0.0]
        for k, r in enumerate(self.breaks):
            offsets.append(offsets[-1] + (self.slopes[k + 1] - self.slopes[k]) * np.log(r))
        one = int(np.searchsorted(self.breaks, 1.0))
        return np.asarray(offsets) - offsets[one]
