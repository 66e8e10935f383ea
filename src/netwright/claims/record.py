"""A claim: what the paper says, and what is measured here. Results are written by the run only."""

from __future__ import annotations

import importlib
import json
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from netwright.core import catalogue
from netwright.core.checkpoint import atomic
from netwright.core.errors import BadInput

Verdict = Literal["holds", "does not hold here", "mixed"]


@dataclass(frozen=True)
class Claim:
    """paper: what it says, with its figure. setting: network, data, budget of the quick scale, in words.

    holds_if: the rule for the verdict, fixed before the run. full: how the full scale differs, in words; empty where
    there is none.
    """

    slug: str
    paper: str
    setting: str
    holds_if: str
    full: str = ""


@dataclass(frozen=True)
class Scale:
    """quick: at most 10 minutes on 2 cores. full: for a GPU or a long run."""

    name: Literal["quick", "full"] = "quick"
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"


@dataclass(frozen=True)
class Measured:
    """rows: one per arm and seed. figures: the numbers that the verdict rests on. summary: one sentence.

    seeds: those that were used, where they are not the scale's.
    """

    rows: list[dict[str, Any]]
    verdict: Verdict
    summary: str
    figures: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    seeds: tuple[int, ...] = ()


def module_of(slug: str) -> Any:
    """The module netwright.claims.<goal>.<slug> that holds CLAIM and measure."""
    row = catalogue.method(slug)
    name = f"netwright.claims.{row.goal}.{slug.replace('-', '_')}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name and not name.startswith(f"{error.name}."):
            raise
        raise BadInput(f"'{slug}' has no claim yet") from None


def revision() -> str:
    """The code's revision, with '+' when files differ from it; 'unknown' outside a checkout."""
    root = Path(__file__).parent
    try:
        git = lambda *words: subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--", ".") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Any]:
    import os

    import torch

    from netwright.core.cost import processor_name

    return {
        "processor": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "system": platform.system(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }  # fmt: skip


def run(slug: str, scale: Scale, folder: Path) -> dict[str, Any]:
    """Measure a claim and write folder/<slug>.json (full scale: <slug>.full.json)."""
    module = module_of(slug)
    measure: Callable[[Scale], Measured] = module.measure
    if scale.name == "full" and not module.CLAIM.full:
        raise BadInput(f"the claim of '{slug}' has no full scale; leave out --full")
    made_by = revision()  # of the code that is about to run, which may be edited meanwhile
    start, worked = time.monotonic(), time.process_time()
    measured = measure(scale)
    result = {
        **asdict(module.CLAIM),
        **asdict(measured),
        "scale": scale.name,
        "seeds": list(measured.seeds or scale.seeds),
        "seconds": round(time.monotonic() - start, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: version(name) for name in ("netwright", "torch", "numpy", "onnxruntime")},
        "python": platform.python_version(),
        "revision": made_by,
    }
    name = f"{slug}.json" if scale.name == "quick" else f"{slug}.full.json"
    with atomic(folder / name) as path:
        path.write_text(json.dumps(_rounded(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def _rounded(value: Any) -> Any:
    """Six significant digits: what was measured, without noise digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    return value
