"""Two networks judged on the same examples: how far their metrics differ, with a 95 % interval."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

_Z = 1.959964  # the normal's 97.5 % quantile
DRAWS = 2000
FEWEST_DRAWS = 200
_BLOCK, _ALL = 4_000_000, 200_000_000  # numbers that the bootstrap draws at once, and in all


@dataclass(frozen=True)
class Change:
    """after - before of one metric, and the 95 % interval of that difference; how many examples it rests on."""

    value: float
    low: float
    high: float
    examples: int

    @property
    def sure(self) -> bool:
        """Whether the interval excludes that nothing changed."""
        return not self.low <= 0 <= self.high

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def judged(outputs: Tensor, targets: Tensor, kind: str) -> Tensor:
    """What the metrics of `score` are made of, per example, in double precision.

    classification (N, 1): right or not. multilabel (N, 1): share of labels that are right. regression (N, 3):
    squared error, absolute error, and squared distance of the target from the mean one, each averaged over outputs.
    """
    if kind == "classification":
        return (outputs.argmax(1) == targets).double()[:, None]
    if kind == "multilabel":
        return ((outputs > 0) == targets.bool()).double().flatten(1).mean(1, keepdim=True)
    wanted = targets.double()
    error = outputs.double().reshape(wanted.shape) - wanted
    columns = (error.pow(2), error.abs(), (wanted - wanted.mean(0)).pow(2))
    return torch.stack([c.reshape(len(c), -1).mean(1) for c in columns], 1)


def changes(before: Tensor, after: Tensor, labels: int = 1) -> dict[str, Change]:
    """The differences of two networks' metrics, from what `judged` gave of each on the same examples.

    accuracy where there is one column (labels: how many of them an example has); r2, mae and rmse where there are
    three.
    """
    if before.shape != after.shape:
        raise ValueError(f"not the same examples: {tuple(before.shape)} and {tuple(after.shape)}")
    if before.shape[1] == 1:
        return {"accuracy": of_hits(after[:, 0] - before[:, 0], 1 / labels)}
    return bootstrapped(before.double().numpy(), after.double().numpy())


def of_hits(differences: Tensor, unit: float = 1.0) -> Change:
    """Of accuracies, from the difference of each example's hits (N,), in steps of `unit`.

    A normal interval after one difference of `unit` of either sign is added, which is Bonett and Price's for paired
    proportions ("Adjusted Wald confidence interval for a difference of binomial proportions based on paired data",
    2012): it holds its level with few examples too, and has a width where the networks never differ.
    """
    d = differences.double()
    n = len(d) + 2
    mean = d.sum().item() / n
    variance = (d.pow(2).sum().item() + 2 * unit**2) / n - mean**2
    half = _Z * math.sqrt(max(variance, 0.0) / n)
    return Change(d.mean().item(), max(-1.0, mean - half), min(1.0, mean + half), len(d))


def bootstrapped(before: np.ndarray, after: np.ndarray, draws: int = DRAWS) -> dict[str, Change]:
    """Of R2, MAE and RMSE, from (N, 3) each: examples are drawn again, the same ones for both networks, and the
    middle 95 % of the differences are the interval. The mean target stays that of all examples."""
    count, rng = len(before), np.random.default_rng(0)
    both = np.concatenate([before, after], 1)
    draws = min(draws, max(FEWEST_DRAWS, _ALL // count))
    step = max(1, _BLOCK // count)
    means = []
    for start in range(0, draws, step):
        drawn = rng.integers(0, count, (min(step, draws - start), count))
        times = np.stack([np.bincount(row, minlength=count) for row in drawn])
        means.append(times @ both / count)
    value, resampled = _differences(both.mean(0)[None]), _differences(np.concatenate(means))
    found = {}
    for at, name in enumerate(("r2", "mae", "rmse")):
        low, high = np.nanquantile(resampled[:, at], [0.025, 0.975])
        found[name] = Change(float(value[0, at]), float(low), float(high), count)
    return found


def _differences(means: np.ndarray) -> np.ndarray:
    """(D, 6) means of both networks' columns -> (D, 3): R2, MAE and RMSE, after - before."""
    a, b = means[:, :3], means[:, 3:]
    spread = np.maximum(a[:, 2], 1e-12)
    return np.stack([(a[:, 0] - b[:, 0]) / spread, b[:, 1] - a[:, 1], np.sqrt(b[:, 0]) - np.sqrt(a[:, 0])], 1)


def r2_error(judged_: Tensor) -> float:
    """The standard error of one network's R2, from the (N, 3) that `judged` gave: the delta method."""
    squared, spread = judged_[:, 0].double(), judged_[:, 2].double()
    mean = spread.mean().clamp_min(1e-12)
    influence = -(squared - squared.mean()) / mean + squared.mean() * (spread - spread.mean()) / mean**2
    return (influence.std(correction=0) / math.sqrt(len(influence))).item()
