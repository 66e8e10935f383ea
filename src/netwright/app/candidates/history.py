"""What won before: a line for each `improve` that ended, in the user's cache. The next one tries first what won on
similar networks.

A line holds names and figures, never a network or data. Only what validation data chose counts, as in every choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import nn

from netwright.app.deployment import Deployment
from netwright.core.budget import Target
from netwright.core.files.checkpoint import atomic
from netwright.core.measure.cost import macs_by_operator
from netwright.core.measure.machine import instruction_sets
from netwright.core.network import parameter_count
from netwright.core.plural import number_of
from netwright.core.task import Task

KEPT = 200  # runs; the oldest go
SIZE, ASKED = 4.0, 1.5  # factors within which networks are of like size, and targets ask for as much
MAIN = 0.1  # share of the multiply-accumulates from which a kind of layer is one of the main ones
_SAID = 5  # runs that are named in a sentence
_WAIT = 5.0  # seconds for another command that writes at this moment

_KINDS = {
    "convolution": ("convolution",),
    "matrix product": ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "_trilinear"),
    "attention": (
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_fused_attention_overrideable",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Circumstances:
    """What a win depends on. task: 'classification of image'. layers: kinds of the main ones. target: times faster and
    smaller and the drop that may be, None where it does not matter."""

    task: str
    layers: tuple[str, ...]
    parameters: int
    target: tuple[float | None, ...]
    deployment: str
    instructions: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One `improve`: names for people, the slugs that were tried, and the one that was chosen ('': none met what was
    asked)."""

    id: str
    date: str
    network: str
    task: str
    about: Circumstances
    tried: tuple[str, ...]
    won: str


@dataclass(frozen=True)
class Order:
    """The methods in the order in which they are tried. runs: 'digits-cnn on digits, 2026-11-28: taylor-pruning' of
    each run that it came from; none where it is the catalogue's."""

    slugs: tuple[str, ...]
    runs: tuple[str, ...] = field(default=())

    @property
    def sentence(self) -> str:
        """Where the order came from, for people; '' where it is the catalogue's."""
        if not self.runs:
            return ""
        more = len(self.runs) - _SAID
        said = [*self.runs[-_SAID:], *([f"{more} more before"] if more > 0 else [])]
        return (
            f"methods are tried in the order of what won in {number_of(len(self.runs), 'earlier run')} on similar "
            f"networks ({'; '.join(said)}); --no-history leaves that out"
        )

    def to_json(self) -> dict[str, Any]:
        return {"slugs": list(self.slugs), "runs": list(self.runs)}


def circumstances(network: nn.Module, task: Task, target: Target, deployment: Deployment) -> Circumstances:
    counts = macs_by_operator(network, task.example())
    total = max(1, sum(counts.values()))
    shares = {kind: sum(counts.get(name, 0) for name in names) / total for kind, names in _KINDS.items()}
    layers = [kind for kind, share in shares.items() if share >= MAIN]
    if any(isinstance(module, nn.RNNBase) for module in network.modules()):
        layers.append("recurrent")
    return Circumstances(
        f"{task.kind} of {task.meaning}", tuple(layers), parameter_count(network),
        (target.faster, target.smaller, target.max_drop), str(deployment), instruction_sets(),
    )  # fmt: skip


def similar(a: Circumstances, b: Circumstances) -> bool:
    """The same kind of task, the same kinds of main layers, a size within SIZE times, as much asked for of the same
    (within ASKED times), the same batch and threads, and a processor with the same vector instructions."""
    same = (a.task, a.layers, a.deployment, a.instructions) == (
        b.task,
        b.layers,
        b.deployment,
        b.instructions,
    )
    return (
        same
        and _near(a.parameters, b.parameters, SIZE)
        and all(_near(x, y, ASKED) for x, y in zip(a.target, b.target, strict=True))
    )


def _near(a: float | None, b: float | None, factor: float) -> bool:
    if a is None or b is None:
        return a is b
    return max(a, b) <= factor * min(a, b)


def ordered(slugs: Sequence[str], about: Circumstances, runs: Sequence[Run]) -> Order:
    """The slugs by the share of similar runs that each won, of those in which it was tried; as they stand where that is
    the same."""
    alike = [run for run in runs if run.won in slugs and similar(run.about, about)]
    if not alike:
        return Order(tuple(slugs))
    share = lambda slug: sum(r.won == slug for r in alike) / max(1, sum(slug in r.tried for r in alike))
    said = [f"{run.network} on {run.task}, {run.date}: {run.won}" for run in alike]
    return Order(tuple(sorted(slugs, key=share, reverse=True)), tuple(said))


def folder() -> Path:
    from netwright.data.places import cache_folder

    return cache_folder("history")


def read() -> list[Run]:
    """The runs on record, the oldest first; what is no run (a damaged line, another version's) is left out."""
    try:
        lines = (folder() / "improve.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [run for line in lines if (run := _run(line)) is not None]


def _run(line: str) -> Run | None:
    try:
        row: Mapping[str, Any] = json.loads(line)
        about = {k: tuple(v) if isinstance(v, list) else v for k, v in row["about"].items()}
        run = Run(**{**row, "about": Circumstances(**about), "tried": tuple(row["tried"])})
        return run if similar(run.about, run.about) else None  # figures that do not compare are no figures
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def add(run: Run) -> None:
    """Put a run on record, in the place of one with the same id. Raises NetwrightError or OSError where it cannot be
    written."""
    path = folder() / "improve.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock"), timeout=_WAIT):
        runs = [*(kept for kept in read() if kept.id != run.id), run][-KEPT:]
        with atomic(path) as temporary:
            temporary.write_text("".join(json.dumps(asdict(r)) + "\n" for r in runs), encoding="utf-8")
