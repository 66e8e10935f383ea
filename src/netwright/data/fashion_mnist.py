"""fashion-mnist: 70,000 articles of clothing of 28x28 pixels (Xiao, Rasul, Vollgraf, arXiv 1708.07747)."""

from __future__ import annotations

from netwright.core.task import Task
from netwright.data.idx import task_of
from netwright.data.sources import source

CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def load(seed: int = 0, limit: int | None = None) -> Task:
    """The official 60,000 for training; the official 10,000 test images are halved for validation and test."""
    return task_of(source("fashion-mnist"), CLASSES, 0.2860, 0.3530, seed, limit)
