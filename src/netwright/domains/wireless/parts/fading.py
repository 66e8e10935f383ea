"""Laws of fading and shadowing: a random factor on the received power, drawn as its logarithm.

Heavy tails reach beyond the range of floating point, so that only logarithms are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import special


class Fading(Protocol):
    """tail_index: a, where P(m > x) is regularly varying with index -a; inf for lighter tails, 0 for slow variation.

    mean: of m (infinite where it is).
    """

    @property
    def tail_index(self) -> float: ...
    @property
    def mean(self) -> float: ...
    def log_sample(self, rng: np.random.Generator, size: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Rayleigh:
    """Exponential power of mean 1."""

    tail_index = np.inf
    mean = 1.0

    def log_sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return np.log(rng.standard_exponential(size))


@dataclass(frozen=True)
class Nakagami:
    """Gamma power of mean 1 and shape m."""

    m: float = 2.0
    tail_index = np.inf
    mean = 1.0

    def log_sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return np.log(rng.standard_gamma(self.m, size) / self.m)


@dataclass(frozen=True)
class LogNormal:
    """Shadowing with a standard deviation in decibels and median 1. Heavier than exponential, yet all moments exist."""

    decibels: float = 8.0
    tail_index = np.inf

    @property
    def _sigma(self) -> float:
        return self.decibels * np.log(10) / 10

    @property
    def mean(self) -> float:
        return float(np.exp(self._sigma**2 / 2))

    def log_sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return self._sigma * rng.standard_normal(size)


@dataclass(frozen=True)
class Pareto:
    """P(m > x) = x^-index for x >= 1."""

    index: float = 0.7

    @property
    def tail_index(self) -> float:
        return self.index

    @property
    def mean(self) -> float:
        return self.index / (self.index - 1) if self.index > 1 else np.inf

    def log_sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.standard_exponential(size) / self.index


@dataclass(frozen=True)
class LogPareto:
    """P(m > x) = (1 + log x)^-index for x >= 1: slowly varying, heavier than every power. log m has a mean for
    index > 1."""

    index: float = 2.0
    tail_index = 0.0
    mean = np.inf

    def log_sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return np.expm1(rng.standard_exponential(size) / self.index)


@dataclass(frozen=True)
class Law:
    """Any positive `scipy.stats` distribution; its tail index is for the user to state (infinite: light)."""

    distribution: Any
    tail_index: float

    @property
    def mean(self) -> float:
        return float(self.distribution.mean())

    def log_sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return np.log(self.distribution.rvs(size, random_state=rng))


@dataclass(frozen=True)
class Product:
    """Independent factors multiplied, such as Rayleigh fading on lognormal shadowing."""

    factors: tuple[Fading, ...]

    @property
    def tail_index(self) -> float:
        return min(f.tail_index for f in self.factors)

    @property
    def mean(self) -> float:
        return float(np.prod([f.mean for f in self.factors]))

    def log_sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return np.sum([f.log_sample(rng, size) for f in self.factors], axis=0)


def hill(log_values: np.ndarray, top: int) -> tuple[float, float]:
    """Hill's estimate of the tail index from the `top` largest of some logarithms, and its standard error."""
    order = np.sort(np.asarray(log_values))[::-1]
    if not 1 < top < len(order):
        raise ValueError(f"top must lie between 2 and {len(order) - 1}")
    gap = float(np.mean(order[:top]) - order[top])
    index = np.inf if gap <= 0 else 1 / gap
    return index, index / np.sqrt(top)


def limit_coverage(index: float, threshold: np.ndarray | float) -> np.ndarray:
    """P(SIR > y) = y^-rho sin(pi rho) / (pi rho) for y >= 1, in the limit of density, tail index 0 < rho < 1."""
    y = np.asarray(threshold, dtype=float)
    if not 0 < index < 1 or (y < 1).any():
        raise ValueError("the closed form needs 0 < index < 1 and thresholds of at least 1")
    return y**-index * special.sinc(index)
