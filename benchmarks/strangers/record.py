"""What a script here has measured, in docs/benchmarks/NAME.json as it comes; the next run goes on from it.

Two runs of one script, over different networks, may write to the file at the same time.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from netwright.claims.record import machine, revision

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"


class Record:
    """Rows by name. settings: what must be the same for a run to go on from an earlier one."""

    def __init__(self, name: str, settings: dict[str, Any], fresh: bool = False) -> None:
        self.path = FOLDER / f"{name}.json"
        self.settings = settings
        self.rows: dict[str, dict[str, Any]] = {}
        self.found: dict[str, Any] = {}
        if fresh:
            self.path.unlink(missing_ok=True)
        self._read()

    def _read(self) -> None:
        held = json.loads(self.path.read_text()) if self.path.exists() else {}
        if held.get("settings") == self.settings:
            self.rows = {row.pop("name"): row for row in held["rows"]} | self.rows

    def row(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of an earlier run, else made now and written. Each says by which revision it was measured."""
        if name not in self.rows:
            made = {**make(), "revision": revision()}
            with FileLock(f"{self.path}.lock"):
                self._read()
                self.rows[name] = made
                self._write()
        return self.rows[name]

    def summary(self, found: dict[str, Any]) -> None:
        self.found = found
        with FileLock(f"{self.path}.lock"):
            self._read()
            self._write()

    def _write(self) -> None:
        rows = [{"name": name, **row} for name, row in self.rows.items()]
        document = {
            "settings": self.settings, "summary": self.found, "rows": rows, "machine": machine(),
            "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "onnxruntime")}},
            "date": datetime.now(UTC).date().isoformat(),
        }  # fmt: skip
        self.path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
