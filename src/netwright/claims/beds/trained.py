"""The few networks and data sets that many claims share, trained once per seed and kept in a cache.

A cached state is keyed by the recipe, so that a changed recipe trains again; it is safetensors, never a pickle.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from netwright.core.checkpoint import load_state, save_state
from netwright.core.errors import UnknownName
from netwright.core.fit import Fit
from netwright.core.network import seeded
from netwright.core.task import Task
from netwright.data import task as named_task
from netwright.models import build


@dataclass(frozen=True)
class Testbed:
    """A network (by name and configuration), a task (by name and options), and how it is trained."""

    __test__ = False

    model: str
    task: str
    fit: Fit
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


TESTBEDS = {
    # 8x8 digits, a few seconds
    "digits-cnn": Testbed("cnn", "digits", Fit(epochs=15, lr=3e-3), {"widths": (16, 32, 64)}),
    "digits-resnet": Testbed("resnet", "digits", Fit(epochs=15, lr=3e-3), {"depth": 8, "width": 16}),
    "digits-vit": Testbed("vit", "digits", Fit(epochs=40, batch_size=64, lr=2e-3, warmup=2)),
    # eight layers alike, for claims that compare layers; relu1 to relu8 are their outputs
    "digits-cnn-deep": Testbed("cnn", "digits", Fit(epochs=15, lr=3e-3), {"widths": (16,) * 8}),
    # 28x28 Fashion-MNIST, 10,000 training images, under a minute
    "fashion-cnn": Testbed(
        "cnn", "fashion-mnist", Fit(epochs=5, lr=3e-3), {"widths": (16, 32, 64)}, {"limit": 10_000}
    ),
    "fashion-resnet": Testbed(
        "resnet", "fashion-mnist", Fit(epochs=5, lr=3e-3), {"depth": 8, "width": 16}, {"limit": 10_000}
    ),
    # trained long on little data: nearly perfect there, too sure of itself elsewhere; half a minute
    "fashion-overconfident": Testbed(
        "cnn", "fashion-mnist", Fit(epochs=20, lr=3e-3, weight_decay=0.0, schedule="constant", augment=False),
        {"widths": (16, 32, 64)}, {"limit": 3000},
    ),
    # over 90 %, with room to spare: about 10 minutes on one core
    "fashion-resnet-wide": Testbed(
        "resnet", "fashion-mnist", Fit(epochs=4, lr=4e-3, schedule="one-cycle"),
        {"depth": 8, "width": 32}, {"limit": 30_000},
    ),
}  # fmt: skip


def cache_folder() -> Path:
    base = os.environ.get("NETWRIGHT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(base) / "netwright" / "testbeds"


def fresh(name: str, seed: int = 0) -> tuple[nn.Module, Task, Fit]:
    """The untrained network, its task and its recipe with this seed."""
    if name not in TESTBEDS:
        raise UnknownName("testbed", name, TESTBEDS)
    bed = TESTBEDS[name]
    task = named_task(bed.task, **bed.options)
    with seeded(seed):
        network = build(bed.model, task.input_shape, task.outputs, **bed.config)
    return network, task, Fit(**{**bed.fit.__dict__, "seed": seed})


def testbed(name: str, seed: int = 0) -> tuple[nn.Module, Task]:
    """The trained network, in evaluation mode, and its task. Trains it the first time."""
    network, task, fit = fresh(name, seed)
    recipe = hashlib.sha256(repr((TESTBEDS[name], fit, task.fingerprint(), torch.__version__)).encode())
    path = cache_folder() / f"{name}-{seed}-{recipe.hexdigest()[:12]}.safetensors"
    if path.exists():
        network.load_state_dict(load_state(path)[0])
    else:
        fit(network, task)
        save_state(path, network.state_dict())
    return network.eval(), task


testbed.__test__ = False  # type: ignore[attr-defined]
