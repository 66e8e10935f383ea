"""A claim: what the paper says, and what is measured here. Results are written by the run only."""

from __future__ import annotations

import importlib
import json
import math
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from netwright.claims.clock import left_out
from netwright.claims.rule import Rule
from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.files.checkpoint import atomic


@dataclass(frozen=True)
class Claim:
    """paper: what it says, with its figure. setting: network, data, budget of the quick scale, in words.

    rule: conditions on the figures, fixed before the run. full: how the full scale differs, in words; empty where
    there is none. seeds: how many, unless the run says otherwise.
    """

    slug: str
    paper: str
    setting: str
    rule: Rule
    full: str = ""
    seeds: int = 3


@dataclass(frozen=True)
class Scale:
    """quick: most under 5 minutes on 2 cores, 20 where the effect needs it. full: for a GPU or a long run.

    seeds: none stands for as many as the claim asks for.
    """

    name: Literal["quick", "full"] = "quick"
    seeds: tuple[int, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True)
class Measured:
    """What a claim's `judge` makes of its rows. summary: one sentence. figures: the numbers that the rule looks at.

    bed: figures that say why the bed can show the effect at all, and notes what they do not say by themselves.
    seeds: those that were used, where the rows do not say so.
    """

    summary: str
    figures: dict[str, Any]
    bed: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    seeds: tuple[int, ...] = ()


def module_of(slug: str) -> Any:
    """The module netwright.claims.<goal>.<slug>: CLAIM, measure(scale) -> rows, judge(rows) -> Measured."""
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

    from netwright.core.measure.machine import instruction_sets, processor_name

    return {
        "processor": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "system": platform.system(), "instruction_sets": list(instruction_sets()),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }  # fmt: skip


def run(slug: str, scale: Scale, folder: Path) -> dict[str, Any]:
    """Measure a claim and write folder/<slug>.json (full scale: <slug>.full.json)."""
    module = module_of(slug)
    if scale.name == "full" and not module.CLAIM.full:
        raise BadInput(f"the claim of '{slug}' has no full scale; leave out --full")
    scale = scale if scale.seeds else replace(scale, seeds=tuple(range(module.CLAIM.seeds)))
    if len(scale.seeds) < 2:
        raise BadInput("a verdict rests on intervals over seeds: give --seeds 2 or more")
    made_by = revision()  # of the code that is about to run, which may be edited meanwhile
    start, worked = time.monotonic(), time.process_time()
    before = left_out()  # beds that are not on this machine yet are trained, and do not count
    rows = _rounded(module.measure(scale))  # so that the figures follow from the rows as they are written
    seconds, processor = (a - b for a, b in zip(left_out(), before, strict=True))
    result = {
        **_judged(module, rows),
        "scale": scale.name,
        "seconds": round(time.monotonic() - start - seconds, 1),
        "processor_seconds": round(time.process_time() - worked - processor, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: version(name) for name in ("netwright", "torch", "numpy", "onnxruntime")},
        "python": platform.python_version(),
        "revision": made_by,
    }
    _write(folder / (f"{slug}.json" if scale.name == "quick" else f"{slug}.full.json"), result)
    return result


def judge_again(slug: str, folder: Path) -> dict[str, Any]:
    """Apply today's statistics and rule to the rows of folder/<slug>.json, and write down that this was done.

    What was measured, how, when and by which code stays as the run wrote it.
    """
    path = folder / f"{slug}.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} holds no result to judge again ({error})") from None
    judged = _judged(module_of(slug), before["rows"])
    kept = {name: before[name] for name in ("paper", "setting", "full", "rows") if name in before}
    result = {**before, **judged, **kept}
    result["judged"] = {"revision": revision(), "date": datetime.now(UTC).date().isoformat()}
    _write(path, result)
    return result


def _judged(module: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The part of a result that follows from the rows."""
    claim: Claim = module.CLAIM
    measured: Measured = module.judge(rows)
    said = asdict(claim)
    del said["rule"], said["seeds"]
    return {
        **said,
        "holds_if": claim.rule.words(),
        "rows": rows,
        "verdict": claim.rule.verdict({**measured.bed, **measured.figures}),
        **asdict(measured),
        "seeds": list(measured.seeds or dict.fromkeys(row["seed"] for row in rows)),
    }


def _write(path: Path, result: dict[str, Any]) -> None:
    """JSON as every reader knows it: a figure without a finite value is the claim's to word, not to leave to chance."""
    rounded = _rounded(result)
    if bad := list(_not_finite(rounded)):
        raise ValueError(f"{path.name} would hold numbers that are not finite: {', '.join(bad[:5])}")
    with atomic(path) as temporary:
        text = json.dumps(rounded, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _not_finite(value: Any, where: str = "") -> Iterator[str]:
    """Where in a result infinities and not-a-numbers stand."""
    if isinstance(value, float) and not math.isfinite(value):
        yield where
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _not_finite(inner, f"{where}[{index}]")


def _rounded(value: Any) -> Any:
    """Six significant digits: what was measured, without noise digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    return value
