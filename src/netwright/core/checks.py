"""Checks of data that comes from outside, at the door: each gives one clear error."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.errors import BadInput


def as_tensor(array: Any, what: str) -> Tensor:
    """A tensor of a type that we compute with; objects and strings are refused."""
    if isinstance(array, Tensor):
        return array.detach().cpu()
    values = np.asarray(array)
    if values.dtype.kind not in "biuf":
        raise BadInput(f"{what} holds {values.dtype}, not numbers")
    if values.dtype.kind == "f":
        values = values.astype(np.float32, copy=False)
    elif values.dtype != np.uint8:
        values = values.astype(np.int64, copy=False)
    return torch.from_numpy(np.ascontiguousarray(values))


def as_inputs(x: Any, what: str) -> tuple[Tensor, ...]:
    """Inputs (N, ...), one or several, finite."""
    arrays = x if isinstance(x, tuple) else (x,)
    tensors = tuple(as_tensor(a, what) for a in arrays)
    for tensor in tensors:
        if tensor.dim() < 2:
            raise BadInput(
                f"{what} has shape {tuple(tensor.shape)}; the first dimension counts examples, so at least 2"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).flatten(1).any(1).sum())
            raise BadInput(
                f"{what} holds NaN or Inf in {bad} of {len(tensor)} examples; clean or drop them first"
            )
    return tensors


def as_targets(y: Any, what: str) -> Tensor:
    """Targets (N,) or (N, L), finite."""
    tensor = as_tensor(y, what)
    if tensor.dim() == 2 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    if tensor.dim() not in (1, 2):
        raise BadInput(f"{what} has shape {tuple(tensor.shape)}; expected (N,) or (N, labels)")
    if tensor.is_floating_point():
        if not bool(torch.isfinite(tensor).all()):
            raise BadInput(f"{what} holds NaN or Inf; clean or drop those examples first")
    else:
        tensor = tensor.long()
    return tensor


def guess_kind(y: Tensor) -> Any:
    """Classes are integers (or floats that are), labels are rows of 0 and 1, everything else is regression."""
    if y.dim() == 2:
        return "multilabel" if bool(((y == 0) | (y == 1)).all()) else "regression"
    return "regression" if y.is_floating_point() else "classification"


def check_classes(
    targets: dict[str, Tensor], kind: str, classes: tuple[str, ...], name: str
) -> tuple[int, tuple[str, ...]]:
    """Width of the output and class names; refuses labels out of range, one class only, empty splits."""
    train = targets["train"]
    low = min((int(y.min()) for y in targets.values() if len(y) and kind == "classification"), default=0)
    if low < 0:
        raise BadInput(f"task '{name}': labels out of range: {low} is negative; number the classes from 0")
    for role, y in targets.items():
        if len(y) == 0:
            raise BadInput(f"task '{name}': the {role} split is empty")
    if kind != "classification":
        return (1 if train.dim() == 1 else train.shape[1]), classes
    low, high = int(train.min()), int(train.max())
    if int(train.unique().numel()) < 2:
        raise BadInput(
            f"task '{name}': the training split has one class only ({low}); there is nothing to learn"
        )
    outputs = len(classes) or high + 1
    for role, y in targets.items():
        worst = int(y.max())
        if worst >= outputs:
            raise BadInput(
                f"task '{name}': labels out of range: {worst} in {role}, but there are {outputs} classes"
            )
    return outputs, classes or tuple(str(c) for c in range(outputs))
