"""Statistics that every claim shares: paired differences over seeds and their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, draws: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean. Three seeds allow 10 distinct resamples: read it so."""
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        raise ValueError("no values to bootstrap")
    means = data[np.random.default_rng(0).integers(0, data.size, (draws, data.size))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def column(rows: Iterable[dict[str, Any]], arm: str, figure: str) -> dict[int, float]:
    """Seed -> figure of one arm."""
    return {
        row["seed"]: float(row[figure]) for row in rows if row["arm"] == arm and row.get(figure) is not None
    }


def paired(rows: Sequence[dict[str, Any]], arm: str, baseline: str, figure: str) -> list[float]:
    """arm - baseline, seed by seed."""
    a, b = column(rows, arm, figure), column(rows, baseline, figure)
    return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


def mean(rows: Sequence[dict[str, Any]], arm: str, figure: str) -> float:
    values = list(column(rows, arm, figure).values())
    return float(np.mean(values))


def spread(rows: Sequence[dict[str, Any]], arm: str, figure: str) -> float:
    """Standard deviation over seeds (n - 1)."""
    values = list(column(rows, arm, figure).values())
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def difference(rows: Sequence[dict[str, Any]], arm: str, baseline: str, figure: str) -> dict[str, Any]:
    """Mean paired difference with its 95 % interval, as a claim's figures want it."""
    values = paired(rows, arm, baseline, figure)
    return {
        "mean": float(np.mean(values)),
        "interval": list(bootstrap_interval(values)),
        "seeds": len(values),
    }
