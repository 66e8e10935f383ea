"""What a script here has measured, in docs/benchmarks/NAME.json as it comes; the next run goes on from it."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from netwright.claims.record import machine, revision

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"


class Record:
    """Rows by name. settings: what must be the same for a run to go on from an earlier one."""

    def __init__(self, name: str, settings: dict[str, Any], fresh: bool = False) -> None:
        self.path = FOLDER / f"{name}.json"
        held = json.loads(self.path.read_text()) if self.path.exists() and not fresh else {}
        self.rows: dict[str, dict[str, Any]] = (
            held.get("rows", {}) if held.get("settings") == settings else {}
        )
        self.settings = settings
        self.found: dict[str, Any] = {}

    def row(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of an earlier run, else made now and written. Each says by which revision it was measured."""
        if name not in self.rows:
            self.rows[name] = {**make(), "revision": revision()}
            self._write()
        return self.rows[name]

    def summary(self, found: dict[str, Any]) -> None:
        self.found = found
        self._write()

    def _write(self) -> None:
        document = {
            "settings": self.settings, "summary": self.found, "rows": self.rows, "machine": machine(),
            "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "onnxruntime")}},
            "date": datetime.now(UTC).date().isoformat(),
        }  # fmt: skip
        self.path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
