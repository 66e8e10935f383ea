"""What adding base stations does to users and to the network, by theory and by simulation.

"Performance Limits of Network Densification", arXiv 1611.07790.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from netwright.core import progress
from netwright.core.errors import BadInput, NotApplicable
from netwright.domains.wireless.parts.fading import Fading, Rayleigh
from netwright.domains.wireless.parts.path_loss import PathLoss

Regime = Literal["grows", "saturates", "vanishes"]


def regime(index: float) -> Regime:
    """What SINR does as density grows, from the tail index of the received power.

    0 (slow variation): it grows without bound. Between 0 and 1: it converges to a non-degenerate law. From 1 on, and
    for lighter tails: it goes to 0. What the paper says of exactly 1 could not be established; it is counted here
    with what lies above, where the sum outgrows its largest term.
    """
    if index < 0:
        raise BadInput(f"a tail index is not negative, got {index}")
    return "grows" if index == 0 else "saturates" if index < 1 else "vanishes"


@dataclass(frozen=True)
class Slope:
    """Of log(metric) over log(density), with a 95 % bootstrap interval over the simulated users."""

    value: float
    low: float
    high: float

    @property
    def regime(self) -> Regime:
        """What a slope of a user's metric says, 0.05 counting as flat; the interval's middle decides."""
        return "saturates" if abs(self.value) <= 0.05 else "grows" if self.value > 0 else "vanishes"


@dataclass(frozen=True)
class Densification:
    """SINR of the typical user at each density.

    densities: (D,) stations per unit of area; log_sinr: (D, S) natural logarithms. Column s is one user throughout:
    denser networks are the sparser ones with stations added. Metrics are per user or, times density, per area.
    """

    densities: np.ndarray
    log_sinr: np.ndarray
    predicted: Regime
    tail_index: float

    def rates(self) -> np.ndarray:
        """log2(1 + SINR), (D, S), bits per second and hertz."""
        return np.logaddexp(0.0, self.log_sinr) / np.log(2)

    def coverage(self, threshold: float = 1.0) -> np.ndarray:
        """P(SINR > threshold), (D,)."""
        return (self.log_sinr > np.log(threshold)).mean(1)

    def rate(self) -> np.ndarray:
        """Mean rate of a user, (D,)."""
        return self.rates().mean(1)

    def coverage_density(self, threshold: float = 1.0) -> np.ndarray:
        """Density times coverage, (D,)."""
        return self.densities * self.coverage(threshold)

    def area_efficiency(self) -> np.ndarray:
        """Density times rate, (D,)."""
        return self.densities * self.rate()

    def rate_slope(self, last: int = 3, draws: int = 500, seed: int = 0) -> Slope:
        """Slope of log(mean rate) over the `last` densities; that of area efficiency is larger by exactly 1."""
        x = np.log(self.densities[-last:])
        rates = self.rates()[-last:]
        fit = lambda means: (x - x.mean()) @ np.log(means) / ((x - x.mean()) ** 2).sum()
        rng = np.random.default_rng(seed)
        users = rates.shape[1]
        again = [fit(rates[:, rng.integers(0, users, users)].mean(1)) for _ in range(draws)]
        return Slope(float(fit(rates.mean(1))), *(float(q) for q in np.quantile(again, [0.025, 0.975])))

    def sinr_slope(self, last: int = 3) -> float:
        """Slope of the median log SINR: 1/rho - 1 in theory for regular variation with rho > 1."""
        return float(
            np.polyfit(np.log(self.densities[-last:]), np.median(self.log_sinr[-last:], axis=1), 1)[0]
        )


@dataclass(frozen=True)
class Densify:
    """Simulator: Poisson stations in a disc around a user who is served by the strongest.

    Received powers are m * gain(distance), fading m independent per station; SINR = max / (sum - max + noise).
    densities: stations per unit of area, rising. radius: of the disc, in the unit of the path loss. noise: power, in
    the unit of the gain. beyond: add the mean interference of an endless network outside the disc (needs a last slope
    above 2 and fading with a mean). users: simulated ones.

    Calling it gives a `Densification`; `tail_index` and `regime` are the theory's answers, without simulation: the
    power's tail is regularly varying with the smaller of 2 / slope at the station (singular path loss) and the
    fading's index. Powers are kept as logarithms. The paper's ordering theorems are used as `order`: by tail index.
    """

    path_loss: PathLoss = field(default_factory=PathLoss)
    fading: Fading = field(default_factory=Rayleigh)
    noise: float = 0.0
    densities: tuple[float, ...] = (10.0, 100.0, 1000.0, 10_000.0)
    radius: float = 1.0
    users: int = 500
    beyond: bool = False
    seed: int = 0

    @property
    def tail_index(self) -> float:
        return min(self.path_loss.tail_index, self.fading.tail_index)

    @property
    def regime(self) -> Regime:
        return regime(self.tail_index)

    def __call__(self) -> Densification:
        densities = np.asarray(self.densities, dtype=float)
        if not len(densities) or densities[0] <= 0 or (np.diff(densities) <= 0).any():
            raise BadInput(f"densities must be positive and rise, got {self.densities}")
        if self.noise < 0 or self.radius <= 0 or self.users < 1:
            raise BadInput("noise must not be negative, radius positive, users at least 1")
        outside = self._outside()
        rng = np.random.default_rng(self.seed)
        log_sinr = np.empty((len(densities), self.users))
        for user in range(self.users):
            log_sinr[:, user] = self._user(densities, outside, rng)
            if user % 50 == 49:
                progress.step(user + 1, self.users, "users simulated")
        return Densification(densities, log_sinr, self.regime, self.tail_index)

    def log_powers(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Log received powers (count,) of stations thrown uniformly into the disc."""
        distance = self.radius * np.sqrt(rng.random(count))
        return self.path_loss.log_gain(distance) + self.fading.log_sample(rng, count)

    def _user(self, densities: np.ndarray, outside: float, rng: np.random.Generator) -> np.ndarray:
        """Log SINR (D,) of one user: stations come in order, and each density takes a longer part of the list."""
        more = rng.poisson(np.diff(densities, prepend=0.0) * np.pi * self.radius**2)
        power = self.log_powers(int(more.sum()), rng)
        result = np.full(len(densities), -np.inf)
        top, rest, start = -np.inf, -np.inf, 0  # logarithms of the strongest, and of the sum of all others
        for k, count in enumerate(more):
            part = power[start : start + count]
            start += count
            if count:
                strongest = int(part.argmax())
                new = float(part[strongest])
                part[strongest] = min(top, new)
                top = max(top, new)
                rest = np.logaddexp(rest, _log_sum(part))
            if top > -np.inf:
                result[k] = top - np.logaddexp(rest, _log(self.noise + densities[k] * outside))
        return result

    def _outside(self) -> float:
        """Mean interference from outside the disc per unit of density."""
        if not self.beyond:
            return 0.0
        mean = self.fading.mean * self.path_loss.beyond(self.radius)
        if not np.isfinite(mean):
            raise NotApplicable(
                "interference from an endless network has no mean here: it needs a last slope above 2 and fading "
                "with a mean"
            )
        return float(mean)


def _log_sum(logs: np.ndarray) -> float:
    """log sum exp, without the temporaries of scipy's."""
    top = logs.max()
    return float(top + np.log(np.exp(logs - top).sum())) if top > -np.inf else -np.inf


def _log(value: float) -> float:
    return float(np.log(value)) if value > 0 else -np.inf


def order(models: Iterable[Densify]) -> list[Densify]:
    """Best for dense networks first: by rising tail index of the received power."""
    return sorted(models, key=lambda model: model.tail_index)


def mean_stations_above(model: Densify, log_power: float, density: float, draws: int = 20_000) -> float:
    """Mean number of stations in the disc received above a power: density * pi E[min(R, gain^-1(x / m))^2]."""
    fading = model.fading.log_sample(np.random.default_rng(model.seed), draws)
    reach = np.minimum(model.path_loss.distance(log_power - fading), model.radius)
    return float(density * np.pi * np.mean(reach**2))
