"""What the suite is told of single methods and domains, each in a file of its own that is found by its name.

small/<slug>.toml: settings that keep a method small whose own defaults (not its budget) make it slow. Most have none.
domains/<domain>.py: `data()`, what an Estimator of that domain is fitted on, and `asked(data)`, what it then predicts
from.
"""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

from netwright.core.catalogue import Method


def small(slug: str) -> dict[str, Any]:
    path = Path(__file__).parent / "small" / f"{slug}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def of_domain(row: Method) -> ModuleType:
    """The data of a method's domain: row.path is 'netwright.domains.<domain>....'."""
    return importlib.import_module(f"tests.conformance.domains.{row.path.split('.')[2]}")
