"""What an analysis found, in one shape for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Found:
    """A Finding: figures by name, rows, further data (nested lists and dicts), and how to draw it.

    A value that does not exist (the similarity of a layer that never changes) is NaN here and null in JSON.
    """

    method: str
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
            "method": self.method, "figures": dict(self.figures), "table": self.rows, "data": dict(self.data),
        }  # fmt: skip
        return _finite(content)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
