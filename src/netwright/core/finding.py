"""What an analysis found, in one shape for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

SHOWN = 30  # rows of a notebook's table


@dataclass(frozen=True, repr=False)
class Found:
    """A Finding: in a sentence, figures by name, rows, further data (nested lists and dicts), and how to draw it.

    A value that does not exist (the similarity of a layer that never changes) is NaN here and null in JSON.
    """

    method: str
    sentence: str
    figures: Mapping[str, float]
    rows: list[dict[str, Any]]
    draw: Callable[[], Any]
    data: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> list[dict[str, Any]]:
        return self.rows

    def plot(self) -> Any:
        return self.draw()

    def to_json(self) -> dict[str, Any]:
        content = {
            "method": self.method, "sentence": self.sentence, "figures": dict(self.figures), "table": self.rows,
            "data": dict(self.data),
        }  # fmt: skip
        return _finite(content)

    def __repr__(self) -> str:
        return f"Found({self.method}: {self.sentence})"

    def _repr_html_(self) -> str:
        """The sentence and the first rows, for notebooks; `plot()` draws it."""
        names = list(dict.fromkeys(name for row in self.rows[:SHOWN] for name in row))
        cell = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        lines = (
            "".join(f"<td>{escape(cell(row.get(name, '')))}</td>" for name in names)
            for row in self.rows[:SHOWN]
        )
        table = "".join(f"<tr>{line}</tr>" for line in lines)
        rest = len(self.rows) - SHOWN
        more = f"<p>and {rest:,} rows more: table()</p>" if rest > 0 else ""
        return f"<p>{escape(self.sentence)}</p><table><tr>{head}</tr>{table}</table>{more}"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
