"""Which candidate answers what was asked. Validation figures only; pure functions on a study's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from netwright.app import words
from netwright.app.candidates import control
from netwright.core.budget import Target

Row = dict[str, Any]
LEVEL = 0.05  # differences in latency or size below this share decide nothing: the other figure does
SPARE = 1.1  # times the speed that was asked for: with less to spare, another machine or moment may miss it


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
    is within one standard error of the best one's, or of the original's where that is lower. If none meets it: the
    one that lacks least, or the one with the best metric of those that are level with it in the speed and size
    that were asked for.

    A row whose probabilities have blown up is taken only where no other meets what was asked; one that only just
    has the speed that was asked for (less than SPARE times it), where none of those near the best has more.
    """
    why = {r["key"]: control.WHY for r in rows if r.get("slug") == control.CONTROL and usable(r, metric)}
    rows = [r for r in rows if r["key"] not in why]
    why |= {r["key"]: _trouble(r) for r in rows if not usable(r, metric)}
    able = [r for r in rows if usable(r, metric) and r.get("slug") != control.CONTROL]
    if not able:
        return Choice(None, False, why)
    meeting = []
    for r in able:
        lacking = shortfalls(r, original, target, metric)
        if lacking:
            why[r["key"]] = lacks(r, original, lacking, target, metric)
        else:
            meeting.append(r)
    chosen = (
        _among_meeting(meeting, original, target, metric, examples, why)
        if meeting
        else _stand_in(able, original, target, metric, why)
    )
    if chosen.get("blown_up"):
        why[chosen["key"]] += "; its probabilities have blown up"
    return Choice(chosen, bool(meeting), why)


def _stand_in(able: list[Row], original: Row, target: Target, metric: str, why: dict[str, str]) -> Row:
    """The row that lacks least, where none meets what was asked."""
    total = lambda r: sum(shortfalls(r, original, target, metric).values())
    least = min(able, key=total)
    alike = [r for r in able if level_with(r, least, target)]
    chosen = max(alike, key=lambda r: r[metric])
    first = "lacks least" if chosen is least else f"as near as any (within {100 * LEVEL:.0f} %), and best"
    why[chosen["key"]] = f"chosen: {first}; {why[chosen['key']]}"
    return chosen


def _among_meeting(
    meeting: list[Row], original: Row, target: Target, metric: str, examples: int, why: dict[str, str]
) -> Row:
    """The choice among rows that meet what was asked, and why it is not the others."""
    sound = [r for r in meeting if not r.get("blown_up")] or meeting
    best = max(sound, key=lambda r: r[metric])
    held, name = (best, "best") if best[metric] <= original[metric] else (original, "given network")
    error = standard_error(held, metric, examples)
    close = [r for r in sound if r[metric] >= held[metric] - error]
    spare = [r for r in close if target.faster is None or r["faster"] >= SPARE * target.faster]
    near = spare or close
    field = _Field(meeting, sound, close, near, name)
    order = _BY_SIZE if target.smaller is not None and target.faster is None else _BY_SPEED
    least = min(r[order.first] for r in near)
    level = [r for r in near if r[order.first] <= (1 + LEVEL) * least]
    chosen = min(level, key=lambda r: r[order.second])
    worse = "less accurate" if metric == "accuracy" else f"of a lower {words.NAMES[metric]}"
    for r in meeting:
        if r is chosen:
            said = f"chosen: {field.first(order, error, metric)}"
            if len(level) > 1:
                said += f"; of {len(level)} that are {order.tie} the {order.then}"
        elif r not in sound:
            said = "meets it, but its probabilities have blown up"
        elif r in level:
            tied = r[order.second] == chosen[order.second]
            said = f"meets it, {order.tie} as the chosen one"
            said += " and level with it in the rest: the first was taken" if tied else f", but {order.but}"
        elif r in near:
            said = f"meets it, but is not the {order.most}"
        elif r in close:
            said = f"meets it, but only just: others have {_SPARED} to spare"
        else:
            said = f"meets it, but is {worse} than the {name}{_by(error, metric)}"
        why[r["key"]] = said
    return chosen


@dataclass(frozen=True)
class _Order:
    """By which figure the choice is made, by which one ties are broken, and the words for it."""

    first: str
    second: str
    most: str
    tie: str
    then: str
    but: str


_TIE = f"(within {100 * LEVEL:.0f} %)"
_BY_SPEED = _Order("onnx_latency_ms", "bytes", "fastest", f"as fast {_TIE}", "smallest", "larger")
_BY_SIZE = _Order("bytes", "onnx_latency_ms", "smallest", f"as small {_TIE}", "fastest", "slower")


@dataclass(frozen=True)
class _Field:
    """Rows that meet what was asked; of those the sound ones, of those the ones near `held` in the metric (the best
    one, or the given network), of those the ones between which the first figure decides."""

    meeting: list[Row]
    sound: list[Row]
    close: list[Row]
    near: list[Row]
    held: str

    def first(self, order: _Order, error: float, metric: str) -> str:
        """Why the chosen one is in front."""
        if len(self.sound) == 1:
            return "the only one that meets it" + (
                "" if self.sound == self.meeting else " with sound probabilities"
            )
        if self.held == "best" and not error:
            return f"the best {words.NAMES[metric]} of those that meet it"
        inside = (
            f"within one standard error of the {self.held} ({_points(error, metric)})"
            if error
            else f"at least as good as the {self.held}"
        )
        if len(self.near) > 1:
            return f"the {order.most} of {len(self.near)} {inside}"
        if len(self.close) > 1:
            return f"the only one {inside} that has {_SPARED} to spare"
        return f"no other is {inside}"


_SPARED = f"{100 * (SPARE - 1):.0f} %"


def standard_error(best: Row, metric: str, examples: int) -> float:
    """Of the difference between the best metric and another one on the same examples; 0 where none is known.

    Bounded by that of two independent samples: of accuracies sqrt(2 p (1 - p) / n); of R2, sqrt(2) times the error
    that was measured (`r2_error`). With few examples, tenths of a point are no reason to prefer a candidate.
    """
    if metric == "accuracy":
        return math.sqrt(max(2 * best[metric] * (1 - best[metric]), 0.0) / examples)
    return math.sqrt(2) * best.get(f"{metric}_error", 0.0)


def _by(error: float, metric: str) -> str:
    return f" by more than one standard error ({_points(error, metric)})" if error else ""


def _points(value: float, metric: str) -> str:
    return f"{100 * value:.1f} points" if metric == "accuracy" else f"{value:.4f}"


def level_with(row: Row, other: Row, target: Target) -> bool:
    """Whether a row is as fast and as small as another, or nearly: in what was asked for only."""
    fast = target.faster is None or row["onnx_latency_ms"] <= (1 + LEVEL) * other["onnx_latency_ms"]
    small = target.smaller is None or row["bytes"] <= (1 + LEVEL) * other["bytes"]
    return fast and small


def _trouble(row: Row) -> str:
    """Why a row is no candidate."""
    if row["status"] == "done" and not row.get("reason"):
        return (
            "its latency was not measured" if "onnx_latency_ms" not in row else "its figures are no numbers"
        )
    return row.get("reason") or row["status"]


def usable(row: Row, metric: str) -> bool:
    """Whether the row is a candidate: it ended well and was measured."""
    numbers = (row.get(metric), row.get("onnx_latency_ms"), row.get("bytes"))
    return row["status"] == "done" and all(v is not None and math.isfinite(v) for v in numbers)


def lacks(row: Row, original: Row, lacking: dict[str, float], target: Target, metric: str) -> str:
    """In words: 'only 1.40x faster, 2.3 points less accurate'."""
    parts = []
    if "faster" in lacking:
        faster = row["faster"]
        slower = f"{words.factor(1 / faster)} slower" if faster < 0.995 else ""
        parts.append(slower or f"only {words.factor(faster, target.faster)} faster")
    if "smaller" in lacking:
        smaller = original["bytes"] / row["bytes"]
        larger = f"{words.factor(1 / smaller)} larger" if smaller < 0.995 else ""
        parts.append(larger or f"only {words.factor(smaller, target.smaller)} smaller")
    if "max_drop" in lacking:
        parts.append(words.lost(metric, original[metric] - row[metric], target.max_drop))
    return ", ".join(parts)
