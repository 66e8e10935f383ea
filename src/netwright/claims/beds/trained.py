"""Beds trained once per machine and seed, and kept in the user's cache together with what their training showed.

A cached state is keyed by its recipe and its data, so that a changed one trains again; it is safetensors, never a
pickle. A training that was interrupted goes on from its last epoch.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from netwright.claims.beds.recipes import BEDS, Bed
from netwright.claims.clock import uncounted
from netwright.core.errors import UnknownName
from netwright.core.files.checkpoint import load_state, save_state
from netwright.core.fit import Fit, History
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.task import Task
from netwright.data import places
from netwright.data import task as named_task
from netwright.models import build


@dataclass(frozen=True)
class Convergence:
    """What a bed's training showed. accuracy: on test data. last_quarter: what validation accuracy gained in the last
    quarter of the epochs (None where the recipe does not validate). seconds: of training."""

    accuracy: float
    last_quarter: float | None
    seconds: float


def cache_folder() -> Path:
    return places.cache_folder("beds")


def bed_named(name: str) -> Bed:
    if name not in BEDS:
        raise UnknownName("bed", name, BEDS)
    return BEDS[name]


def fresh(name: str, seed: int = 0) -> tuple[nn.Module, Task, Fit]:
    """The untrained network, its task and its recipe with this seed."""
    bed = bed_named(name)
    task = named_task(bed.task, **bed.options)
    with seeded(seed):
        network = build(bed.model, task.input_shape, task.outputs, **bed.config)
    return network, task, replace(bed.fit, seed=seed)


def path_of(name: str, seed: int) -> Path:
    """Where the trained bed is kept, whether it is there or not."""
    _, task, fit = fresh(name, seed)
    bed = bed_named(name)
    recipe = repr((bed.model, bed.config, fit, task.fingerprint(), torch.__version__))
    return cache_folder() / f"{name}-{seed}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.safetensors"


def testbed(name: str, seed: int = 0, device: str = "cpu") -> tuple[nn.Module, Task]:
    """The trained network on the CPU, in evaluation mode, and its task. Trains it the first time, on `device`."""
    network, task, fit = fresh(name, seed)
    path = path_of(name, seed)
    if not path.exists():
        with uncounted():
            _train(network, task, fit, path, device)
    network.load_state_dict(load_state(path)[0])
    return network.eval(), task


testbed.__test__ = False  # type: ignore[attr-defined]


def convergence(name: str, seed: int) -> Convergence:
    """What the training of a bed that is there showed."""
    return Convergence(**load_state(path_of(name, seed))[1])


def _train(network: nn.Module, task: Task, fit: Fit, path: Path, device: str) -> None:
    partial = path.with_suffix(".partial.safetensors")
    if len(task.input_shape) == 3:  # images: convolutions in half precision are twice as fast this way
        network = network.to(memory_format=torch.channels_last)
    partial.parent.mkdir(parents=True, exist_ok=True)
    history = replace(fit, checkpoint=str(partial))(network.to(device), task)
    shown = Convergence(
        evaluate(network, task, "test")[task.primary], gained(history, task.primary), spent(history)
    )
    save_state(path, network.to("cpu").state_dict(), asdict(shown))
    partial.unlink(missing_ok=True)


def gained(history: History, metric: str) -> float | None:
    """By how much the validation metric rose in the last quarter of the epochs."""
    values = history.column(metric)
    return values[-1] - values[-1 - max(1, len(values) // 4)] if len(values) > 1 else None


def spent(history: History) -> float:
    """Seconds of training; the clock of a run that was resumed starts anew."""
    total, before = 0.0, 0.0
    for seconds in history.column("seconds"):
        total += seconds - before if seconds >= before else seconds
        before = seconds
    return total
