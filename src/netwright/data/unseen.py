"""Rows that a network has not seen, for the data sets that have a name here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netwright.core.checks import as_inputs, as_targets
from netwright.core.division import halves
from netwright.core.errors import BadInput
from netwright.core.split import ArraySplit
from netwright.core.task import Task
from netwright.data.npz import judging


def judged_by(task: Task, path: Path, seed: int) -> Task:
    """The task with the halves of an .npz (x and y, or x_test and y_test) as validation and test.

    x: as the task holds its inputs: images uint8 (N, C, H, W) or (N, H, W), tokens (N, T); y: numbers or names of the
    task's classes.
    """
    if path.suffix.lower() != ".npz":
        raise BadInput(f"{path}: unseen rows for '{task.name}' come as an .npz with x and y")
    part, held = judging(path, ("x",)), _held(task)
    inputs = as_inputs(part.inputs, f"{path}: x")
    for given, known in zip(inputs, held, strict=True):
        if given.shape[1:] != known.shape[1:] or given.dtype != known.dtype:
            raise BadInput(
                f"{path}: x has shape {tuple(given.shape[1:])} and type {given.dtype}, the inputs of '{task.name}' "
                f"{tuple(known.shape[1:])} and {known.dtype}".replace("torch.", "")
            )
    y = as_targets(_numbers(part.targets, task, path), f"{path}: y")
    if task.kind == "classification" and (int(y.min()) < 0 or int(y.max()) >= task.outputs):
        raise BadInput(f"{path}: labels out of range: '{task.name}' has the classes 0 to {task.outputs - 1}")
    prepare = task.train.prepare  # type: ignore[attr-defined]
    whole = ArraySplit(inputs, y, prepare)
    val, test = halves(y, seed, stratify=task.kind == "classification")
    return replace(task, val=whole.select(val), test=whole.select(test), division="halved")


def _held(task: Task) -> tuple[torch.Tensor, ...]:
    train: Any = task.train
    return train.inputs


def _numbers(y: np.ndarray, task: Task, path: Path) -> np.ndarray:
    if y.dtype.kind != "U":
        return y
    places = {name: i for i, name in enumerate(task.classes)}
    strange = sorted(set(y.tolist()) - set(places))
    if strange:
        raise BadInput(f"{path}: '{strange[0]}' is no class of '{task.name}' ({', '.join(task.classes)})")
    return np.array([places[name] for name in y.tolist()])
