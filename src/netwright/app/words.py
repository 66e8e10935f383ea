"""How figures are said: in the metric's own words, with digits that never contradict a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from netwright.core.measure.paired import Change

NAMES = {"accuracy": "accuracy", "r2": "R2", "mae": "MAE", "rmse": "RMSE"}
Interval = tuple[float, float]


def listed(words: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def figure(metric: str, value: float | None) -> str:
    """A metric's value: accuracies in per cent, R2 to four digits, errors to four that count."""
    if value is None or math.isnan(value):
        return ""
    if metric == "accuracy":
        return f"{100 * value:.1f} %"
    return f"{value:.4f}" if metric == "r2" else f"{value:.4g}"


def asked_drop(metric: str, most: float) -> str:
    """What may be lost: 'at most 1 point less accurate', 'at most 0.01 of R2 lost'."""
    if metric == "accuracy":
        points = round(100 * most, 6)
        return f"at most {points:g} {'point' if points == 1 else 'points'} less accurate"
    return f"at most {most:g} of {NAMES[metric]} lost"


def amount(metric: str, value: float, digits: int | None = None) -> str:
    """A difference without its unit, signed: '+0.8' (points), '-0.0123' (R2), '+0.0121' (MAE, RMSE)."""
    if metric == "accuracy":
        text = f"{100 * value:+.{1 if digits is None else digits}f}"
    elif metric == "r2":
        text = f"{value:+.{4 if digits is None else digits}f}"
    else:
        text = f"{value:+.3g}"
    return text[1:] if float(text) == 0 else text


def moved(metric: str, difference: float, most: float | None = None) -> str:
    """'+0.8 points', '-0.0123 of R2'.

    most: the drop that was asked for; the digits are such that the printed one is met or missed as the true one is.
    """
    digits = None
    if most is not None:
        scale, least = (100, 1) if metric == "accuracy" else (1, 4)
        digits = enough(-scale * difference, least, lambda drop: drop <= scale * (most + 1e-9))
    text = amount(metric, difference, digits)
    if metric != "accuracy":
        return f"{text} of {NAMES[metric]}"
    return f"{text} {'point' if abs(float(text)) == 1 else 'points'}"


def lost(metric: str, drop: float, most: float | None) -> str:
    """A drop, without a sign: '2.3 points less accurate', '0.0210 of R2 lost'."""
    value = moved(metric, -drop, most).lstrip("+-")
    return f"{value} less accurate" if metric == "accuracy" else f"{value} lost"


def interval(metric: str, change: Change) -> str:
    """'[-0.1, +1.7]', in the unit of `moved`."""
    return f"[{amount(metric, change.low)}, {amount(metric, change.high)}]"


def changed(metric: str, change: Change, most: float | None = None) -> str:
    """'accuracy +0.8 points [-0.1, +1.7]', 'R2 -0.0040 [-0.0100, +0.0020]'."""
    value = moved(metric, change.value, most).removesuffix(f" of {NAMES[metric]}")
    return f"{NAMES[metric]} {value} {interval(metric, change)}"


def factor(value: float, asked: float | None = None, digits: int = 2) -> str:
    """'2.13x'; with as many digits as it takes for the printed factor to be met or missed as the true one is."""
    if asked is not None:
        digits = enough(value, digits, lambda v: v >= asked)
    return f"{value:.{digits}f}x"


def enough(value: float, digits: int, met: Callable[[float], Any]) -> int:
    """The least number of digits, `digits` or more, at which the rounded value gets the verdict of the exact one."""
    while digits < 9 and math.isfinite(value) and bool(met(round(value, digits))) != bool(met(value)):
        digits += 1
    return digits


def direction(ratio: float, interval: Interval | None) -> str:
    """Of a latency as a ratio to the original's: 'faster', 'slower' or 'level', where 1 lies inside its interval."""
    if interval is not None and interval[0] <= 1 <= interval[1]:
        return "level"
    return "faster" if ratio <= 1 else "slower"


def speeds(figures: dict[str, Any], asked: float | None = None) -> str:
    """Both runtimes, so that a gain in one hides no loss in the other:
    '2.1x faster in ONNX Runtime, but 1.3x slower in PyTorch'."""
    onnx, torch = figures["onnx_ratio"], figures.get("torch_ratio")
    way = direction(onnx, figures.get("onnx_interval") if asked is None else None)
    if way == "level":
        said = "as fast in ONNX Runtime"
    elif onnx <= 1:
        said = f"{factor(1 / onnx, asked)} faster in ONNX Runtime"
    else:
        said = f"{factor(onnx)} slower in ONNX Runtime"
    if torch is None:
        return said
    other = direction(torch, figures.get("torch_interval"))
    if other == "level":
        return f"{said}, {'but no faster' if way == 'faster' else 'no slower'} in PyTorch"
    times = factor(max(torch, 1 / torch))
    if other == way:
        return f"{said}, {times} in PyTorch"
    return f"{said}, but {times} {other} in PyTorch"


LEVEL = "(level)"


def faster_cell(row: dict[str, Any], bounds: bool = False) -> str:
    """'2.13x' for a table, or '1.02x (level)' where 1 lies inside the 95 % interval of the timing's median; bounds: say
    that too. A record of an earlier version has no interval."""
    if "faster" not in row:
        return ""
    if "onnx_interval_low" not in row:
        return f"{row['faster']:.2f}x"
    low, high = 1 / row["onnx_interval_high"], 1 / row["onnx_interval_low"]
    if low <= 1 <= high:
        return f"{row['faster']:.2f}x {LEVEL}"
    return f"{row['faster']:.2f}x" + (f" [{low:.2f}, {high:.2f}]" if bounds else "")


def level_line(rows: Iterable[dict[str, Any]]) -> str:
    """What '(level)' means, where one of the rows' cells says it; else nothing."""
    if not any(faster_cell(row).endswith(LEVEL) for row in rows):
        return ""
    return (
        f"{LEVEL}: neither faster nor slower than the original for certain: 1 lies inside the 95 % interval of the "
        "timing's median, which a quiet machine narrows"
    )


def size_change(before: float, after: float, asked: float | None = None) -> str:
    """'4.0x smaller', '1.10x larger', 'as large'."""
    if asked is None and abs(before - after) < 0.005 * before:
        return "as large"
    if after <= before:
        return f"{factor(before / after, asked)} smaller"
    return f"{factor(after / before)} larger"
