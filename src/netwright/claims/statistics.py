"""Statistics that every claim shares: paired differences over seeds and their t intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from netwright.core.errors import BadInput


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean. With few seeds a percentile bootstrap is far too narrow: of three values it
    is [least, most], which holds the true mean in three cases of four."""
    data = np.asarray(values, dtype=float)
    if data.size < 2:
        raise BadInput("an interval needs two seeds or more")
    half = float(stats.t.ppf((1 + level) / 2, data.size - 1) * data.std(ddof=1) / np.sqrt(data.size))
    return float(data.mean()) - half, float(data.mean()) + half


def estimate(values: Sequence[float], kind: str = "t") -> dict[str, Any]:
    """Mean over seeds with its 95 % interval, as a claim's figures want it."""
    low, high = t_interval(values)
    return {
        "mean": float(np.mean(values)),
        "low": low,
        "high": high,
        "interval": f"{kind}, 95 %",
        "seeds": len(values),
    }


def column(rows: Iterable[dict[str, Any]], arm: str, figure: str) -> dict[int, float]:
    """Seed -> figure of one arm."""
    return {
        row["seed"]: float(row[figure]) for row in rows if row["arm"] == arm and row.get(figure) is not None
    }


def paired(rows: Sequence[dict[str, Any]], arm: str, baseline: str, figure: str) -> list[float]:
    """arm - baseline, seed by seed."""
    a, b = column(rows, arm, figure), column(rows, baseline, figure)
    if not (a and b):
        raise KeyError(f"no rows of '{arm}' and '{baseline}' that hold {figure}")
    return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


def mean(rows: Sequence[dict[str, Any]], arm: str, figure: str) -> float:
    values = list(column(rows, arm, figure).values())
    if not values:
        raise KeyError(f"no rows of '{arm}' that hold {figure}")
    return float(np.mean(values))


def spread(rows: Sequence[dict[str, Any]], arm: str, figure: str) -> float:
    """Standard deviation over seeds (n - 1)."""
    values = list(column(rows, arm, figure).values())
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def difference(rows: Sequence[dict[str, Any]], arm: str, baseline: str, figure: str) -> dict[str, Any]:
    """Mean paired difference with its 95 % interval."""
    return estimate(paired(rows, arm, baseline, figure), "paired t")


def differences(
    rows: Sequence[dict[str, Any]], arm: str, baselines: Iterable[str], names: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """'figure: arm less baseline' -> difference, for every baseline and figure."""
    return {
        f"{name}: {arm} less {other}": difference(rows, arm, other, name)
        for other in baselines
        for name in names
    }


def arms_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The arms in the order in which they were measured."""
    return list(dict.fromkeys(row["arm"] for row in rows))


def told(gap: dict[str, Any], factor: float = 100, digits: int = 2) -> str:
    """'+0.38 [-0.10, +0.86]': a difference with its interval, in points where the factor is 100."""
    mean_, low, high = (factor * gap[key] for key in ("mean", "low", "high"))
    return f"{mean_:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
