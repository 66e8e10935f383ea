"""Which candidate answers what was asked. Validation figures only; pure functions on a study's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from netwright.core.budget import Target

Row = dict[str, Any]
LEVEL = 0.05  # differences in latency or size below this share decide nothing: the other figure does


@dataclass(frozen=True)
class Choice:
    """The chosen row and, for every row by key, why it was (not) chosen."""

    row: Row | None
    meets: bool
    why: dict[str, str]


def shortfalls(row: Row, original: Row, target: Target, metric: str) -> dict[str, float]:
    """What the row lacks, as fractions of what was asked; empty when it meets everything."""
    lacking = {}
    if target.faster is not None and row["faster"] < target.faster:
        lacking["faster"] = 1 - row["faster"] / target.faster
    if target.smaller is not None:
        smaller = original["bytes"] / row["bytes"]
        if smaller < target.smaller:
            lacking["smaller"] = 1 - smaller / target.smaller
    if target.max_drop is not None:
        drop = original[metric] - row[metric]
        if drop > target.max_drop + 1e-9:
            lacking["max_drop"] = drop - target.max_drop
    return lacking


def choose(rows: Sequence[Row], original: Row, target: Target, metric: str, examples: int) -> Choice:
    """Among the rows that meet what was asked: the fastest (smallest, if only size was asked) of those whose metric
    is within one standard error of the best one's. If none meets it: the one that lacks least, or the one with
    the best metric of those that are level with it in the speed and size that were asked for.

    The standard error is that of a difference of two accuracies on the same `examples` validation examples,
    bounded by sqrt(2 p (1 - p) / n): with few examples, tenths of a point are no reason to prefer a candidate. Of
    other metrics none is known here: the best one of those that meet what was asked is taken.
    """
    why = {r["key"]: r.get("reason") or r["status"] for r in rows if not usable(r, metric)}
    able = [r for r in rows if usable(r, metric)]
    if not able:
        return Choice(None, False, why)
    lacking = {r["key"]: shortfalls(r, original, target, metric) for r in able}
    meeting = [r for r in able if not lacking[r["key"]]]
    for r in able:
        if lacking[r["key"]]:
            why[r["key"]] = lacks(r, original, lacking[r["key"]], metric)
    if not meeting:
        least = min(able, key=lambda r: sum(lacking[r["key"]].values()))
        chosen = max((r for r in able if level_with(r, least, target)), key=lambda r: r[metric])
        why[chosen["key"]] = f"chosen: lacks least; {why[chosen['key']]}"
        return Choice(chosen, False, why)
    best = max(r[metric] for r in meeting)
    error = math.sqrt(max(2 * best * (1 - best), 0.0) / examples) if metric == "accuracy" else 0.0
    near = [r for r in meeting if r[metric] >= best - error]
    by_size = target.smaller is not None and target.faster is None
    first_figure, second_figure = ("bytes", "onnx_latency_ms") if by_size else ("onnx_latency_ms", "bytes")
    least = min(r[first_figure] for r in near)
    level = [r for r in near if r[first_figure] <= (1 + LEVEL) * least]
    chosen = min(level, key=lambda r: r[second_figure])
    first = "smallest" if by_size else "fastest"
    which = (
        f"{first} of those within one standard error of the best" if error else "best of those that meet it"
    )
    for r in meeting:
        if r is chosen:
            why[r["key"]] = f"chosen: {which}"
        elif r in near:
            why[r["key"]] = f"meets it, but is not the {first}"
        else:
            why[r["key"]] = (
                f"meets it, but is less accurate than the best by more than {100 * error:.1f} points"
                if error
                else f"meets it, but has a lower {metric} than the best"
            )
    return Choice(chosen, True, why)


def level_with(row: Row, other: Row, target: Target) -> bool:
    """Whether a row is as fast and as small as another, or nearly: in what was asked for only."""
    fast = target.faster is None or row["onnx_latency_ms"] <= (1 + LEVEL) * other["onnx_latency_ms"]
    small = target.smaller is None or row["bytes"] <= (1 + LEVEL) * other["bytes"]
    return fast and small


def usable(row: Row, metric: str) -> bool:
    """Whether the row is a candidate: it ended well and was measured."""
    numbers = (row.get(metric), row.get("onnx_latency_ms"), row.get("bytes"))
    return row["status"] == "done" and all(v is not None and math.isfinite(v) for v in numbers)


def lacks(row: Row, original: Row, lacking: dict[str, float], metric: str) -> str:
    """In words: 'only 1.4x faster, 2.3 points less accurate'."""
    parts = []
    if "faster" in lacking:
        parts.append(f"only {row['faster']:.2f}x faster")
    if "smaller" in lacking:
        parts.append(f"only {original['bytes'] / row['bytes']:.2f}x smaller")
    if "max_drop" in lacking:
        parts.append(f"{100 * (original[metric] - row[metric]):.1f} points less accurate")
    return ", ".join(parts)
