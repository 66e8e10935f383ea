"""Targets as people store them (numbers, names, flags) -> what a task computes with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from netwright.core.errors import BadInput
from netwright.core.task import Kind

_MANY = 1_000  # classes that a network may know of which few occur
_FEW = (
    20  # whole numbers stored as floats are classes up to so many different ones (or the root of their count)
)


def kind_of(y: np.ndarray) -> Kind:
    """Names, flags and integers are classes; rows of 0 and 1 are labels; floats are values, unless all of them
    are whole and few are different (then they are classes that went through a table)."""
    if y.ndim == 2 and y.shape[1] > 1:
        return "multilabel" if y.dtype.kind in "buif" and bool(np.isin(y, (0, 1)).all()) else "regression"
    if y.dtype.kind != "f":
        return "classification"
    few = max(_FEW, int(len(y) ** 0.5))
    whole = bool((np.abs(y) < 2**31).all()) and bool((y == np.round(y)).all())
    return "classification" if whole and len(np.unique(y)) <= few else "regression"


def encode(
    targets: Mapping[str, np.ndarray], kind: Kind, what: str, renumber: bool = False
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Per split, the targets as numbers, and the classes' names (empty where numbers are their own names).

    renumber: number the classes from 0 in their own order, whatever numbers they carry.
    """
    for role, y in targets.items():
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            bad = int((~np.isfinite(y)).sum())
            raise BadInput(
                f"{what}: the {role} targets hold NaN or Inf in {bad} examples; clean or drop them"
            )
        if y.dtype.kind not in "buifU":
            raise BadInput(f"{what}: the {role} targets are {y.dtype}, neither numbers nor names")
        if kind != "classification" and y.dtype.kind == "U":
            raise BadInput(f"{what}: the {role} targets are names, which kind={kind} cannot use")
    if kind != "classification":
        return {r: y.astype(np.float32 if kind == "regression" else np.int64) for r, y in targets.items()}, ()
    flat = {role: y.reshape(len(y)) if y.size == len(y) else y for role, y in targets.items()}
    for role, y in flat.items():
        if y.ndim != 1:
            raise BadInput(f"{what}: the {role} targets have shape {y.shape}; classes need one per example")
    if renumber or flat["train"].dtype.kind in "bU":
        return _named(flat, what)
    return {role: _whole(y, role, what) for role, y in flat.items()}, ()


def _named(targets: Mapping[str, np.ndarray], what: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    known = np.unique(targets["train"])
    out = {}
    for role, y in targets.items():
        strange = np.setdiff1d(y, known)
        if len(strange):
            raise BadInput(f"{what}: the class '{strange[0]}' occurs in {role} but not in the training split")
        out[role] = np.searchsorted(known, y).astype(np.int64)
    whole = known.dtype.kind == "f" and bool((known == np.round(known)).all())
    return out, tuple(str(int(c)) if whole else str(c) for c in known)


def _whole(y: np.ndarray, role: str, what: str) -> np.ndarray:
    if y.dtype.kind == "f" and not ((np.abs(y) < 2**31) & (y == np.round(y))).all():
        raise BadInput(
            f"{what}: the {role} targets are no whole numbers, which kind=classification cannot use"
        )
    numbers = y.astype(np.int64)
    different = np.unique(numbers)
    if len(different) and different[-1] >= max(_MANY, 10 * len(different) + 100):
        raise BadInput(
            f"{what}: labels out of range: {different[-1]} in {role}, though only {len(different)} different "
            "labels occur; number the classes from 0 without gaps"
        )
    return numbers
