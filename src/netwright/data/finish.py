"""The last steps for a task made of arrays: fewer training examples, and normalisation by what is left of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch

from netwright.core.division import cut
from netwright.core.split import ArraySplit, Normalise
from netwright.core.task import Task
from netwright.data.mapped import channel_moments


def finish(task: Task, seed: int, limit: int | None, normalise: Literal["image", "columns"] | None) -> Task:
    """normalise: 'image' for uint8 (N, C, H, W), scaled to [0, 1] first; 'columns' for tables (N, F)."""
    train: Any = task.train
    if limit is not None:
        train = train.select(cut(torch.arange(len(train)), seed, limit))
        task = replace(task, train=train)
    if normalise is None:
        return task
    if normalise == "image":
        way = Normalise(*channel_moments(train.inputs[0], torch.arange(len(train))), scale=1 / 255)
    else:
        way = _standard(train)
    parts: dict[str, Any] = {
        role: replace(getattr(task, role), prepare=way) for role in ("train", "val", "test")
    }
    return replace(task, normalise=way, **parts)


def _standard(train: ArraySplit) -> Normalise:
    """Mean 0, deviation 1 for each column; a constant column is only shifted."""
    x = train.inputs[0].double()
    std = x.std(0, unbiased=False)
    std[std < 1e-12 * x.abs().amax(0).clamp_min(1e-30)] = 1.0
    return Normalise(x.mean(0).tolist(), torch.where(std > 0, std, 1.0).tolist())
