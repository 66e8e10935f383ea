"""A scatter plot as a small SVG: for notebooks, where a plot that brings its program along would weigh megabytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 34, 48
MARKS = {"dot": "&#9679;", "star": "&#9733;", "diamond": "&#9670;"}


@dataclass(frozen=True)
class Series:
    """Points of one kind. labels: what is shown when one is pointed at. line: joined, in their order, not marked."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[str] = ()
    colour: str = "#2f6db5"
    mark: str = "dot"
    line: bool = False


def scatter(series: Sequence[Series], x_title: str, y_title: str) -> str:
    """The SVG, without any script or resource from elsewhere; '' where there is no point."""
    series = [s for s in series if len(s.x)]
    if not series:
        return ""
    across = _Axis.over([v for s in series for v in s.x], LEFT, WIDTH - RIGHT)
    up = _Axis.over([v for s in series for v in s.y], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'style="max-width:{WIDTH}px;width:100%;background:#fff;font:12px sans-serif">'
        f"<title>{escape(y_title)} over {escape(x_title)}</title>",
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#444"/>',
    ]
    for value in across.ticks:
        at = across(value)
        parts.append(f'<path d="M{at:.1f} {HEIGHT - BOTTOM}v5" stroke="#444"/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 18, f"{value:.4g}", "middle"))
    for value in up.ticks:
        at = up(value)
        parts.append(f'<path d="M{LEFT} {at:.1f}h-5" stroke="#444"/>')
        parts.append(_text(LEFT - 8, at + 4, f"{value:.4g}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_title, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<g transform="rotate(-90 14 {middle})">{_text(14, middle, y_title, "middle")}</g>')
    parts += [_series(s, across, up) for s in series] + [_legend(series)]
    return "".join(parts) + "</svg>"


def _series(s: Series, across: _Axis, up: _Axis) -> str:
    points = [(across(x), up(y)) for x, y in zip(s.x, s.y, strict=True)]
    if s.line:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        return f'<path d="M{path}" fill="none" stroke="{s.colour}" stroke-dasharray="3 3"/>'
    size = 24 if s.mark == "star" else 16
    marks = []
    for i, (x, y) in enumerate(points):
        label = s.labels[i] if s.labels else s.name
        said = escape(f"{label}: {s.x[i]:.4g}, {s.y[i]:.4g}")
        marks.append(
            f'<text x="{x:.1f}" y="{y + size / 3:.1f}" font-size="{size}" text-anchor="middle" fill="{s.colour}">'
            f"<title>{said}</title>{MARKS[s.mark]}</text>"
        )
    return "".join(marks)


def _legend(series: Sequence[Series]) -> str:
    parts, x = [], float(LEFT)
    for s in series:
        mark = "&#8943;" if s.line else MARKS[s.mark]
        parts.append(f'<text x="{x:.0f}" y="18" fill="{s.colour}">{mark} {escape(s.name)}</text>')
        x += 30 + 7 * len(s.name)
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#444">{escape(text)}</text>'


@dataclass(frozen=True)
class _Axis:
    """Values from low to high, drawn from `start` to `end` (pixels)."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        low, high = low - room, high + room
        return cls(low, high, start, end, ticks(low, high))

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Four to nine round values inside [low, high]."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = min((size * f for f in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(i * step for i in range(first, last + 1))
