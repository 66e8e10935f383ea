"""mnist: 70,000 handwritten digits of 28x28 pixels (LeCun, Cortes, Burges)."""

from __future__ import annotations

from netwright.core.task import Task
from netwright.data.idx import task_of
from netwright.data.sources import source


def load(seed: int = 0, limit: int | None = None) -> Task:
    """The official 60,000 for training; the official 10,000 test images are halved for validation and test."""
    return task_of(source("mnist"), [str(d) for d in range(10)], 0.1307, 0.3081, seed, limit)
