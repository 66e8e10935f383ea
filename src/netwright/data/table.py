"""The user's tables: CSV, TSV or Parquet with a target column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from netwright.core.division import divide
from netwright.core.errors import BadInput, UnknownName
from netwright.core.signature import Feature, Input
from netwright.core.task import Kind, Task
from netwright.data.features import asked, encode_rows, filled, usual
from netwright.data.finish import finish
from netwright.data.frame import missing as holes
from netwright.data.frame import plain, read, refuse_infinite, refuse_missing, texts
from netwright.data.targets import encode, kind_of

_USUAL = ("target", "label", "class", "y")
Columns = str | Sequence[str | Feature]


def load(
    path: Path,
    seed: int = 0,
    limit: int | None = None,
    target: str | None = None,
    drop: str | tuple[str, ...] = (),
    kind: Kind | None = None,
    unseen: str | Path | None = None,
    missing: Literal["median", "drop"] | None = None,
    columns: Columns | Mapping[str, Columns] | None = None,
) -> Task:
    """Rows (F,) float32: numbers as they are, text and flags as one column per value; standardised.

    target: the column to predict (default: one named target, label, class or y). drop: columns to leave out
    ('id,name'). kind: classification where the target is text, flags or few whole numbers, else regression.
    15 % of the rows each are validation and test; unseen: another table, whose halves they become, and then all rows
    here are for training.

    missing: values that are missing are refused; 'median' fills them by what the training rows hold (the most
    frequent text), 'drop' leaves such rows out. columns: the network's own numbers in its order, 'age, sex=male';
    by the name of an input where it has several ({'age': 'age', 'sex': 'sex'}), which are then fed as they are.
    """
    if missing not in (None, "median", "drop"):
        raise BadInput(f"missing={missing} is no way to treat missing values; say median or drop")
    frame = read(path)
    frame = frame.drop(columns=_columns(frame, drop))
    wanted = _target(path, frame, target)
    frames = {"train": frame} if unseen is None else {"train": frame, "test": _judging(Path(unseen), wanted)}
    rest = frame.drop(columns=wanted)
    if rest.shape[1] == 0:
        raise BadInput(f"{path} has no column beside the target")
    used = {**_used(rest, columns), wanted: False}
    strange = [name for name in used if name not in frame.columns]
    if strange:
        takes, lacks = ", ".join(list(used)[:-1]), ", ".join(map(repr, strange))
        raise BadInput(
            f"the network takes {takes}; {path} has no column {lacks}, it has {', '.join(rest.columns)} (and the "
            f"target, {wanted})"
        )
    what = {"train": path, "test": unseen}
    note = _settle(frames, used, wanted, missing, what)
    inputs = _inputs(path, frames["train"].drop(columns=wanted), columns)
    y = {role: plain(part[wanted]) for role, part in frames.items()}
    if y["train"].dtype.kind == "U":
        y = {role: texts(part[wanted]) for role, part in frames.items()}
    chosen = kind or _kind(y["train"])
    targets, classes = encode(y, chosen, f"{path.name}, column '{wanted}'", renumber=True)
    if missing == "median":
        rows = _training_rows(targets, chosen, seed)
        inputs = {name: filled(frames["train"].iloc[rows], features) for name, features in inputs.items()}
    x = {
        role: tuple(encode_rows(part, features, what[role]) for features in inputs.values())
        for role, part in frames.items()
    }
    judged = (x["test"], targets["test"]) if "test" in x else None
    task = Task.from_arrays(
        x["train"], targets["train"], test=judged, name=path.stem, kind=chosen, classes=classes, meaning="table",
        seed=seed,
    )  # fmt: skip
    said = tuple(Input(name, (len(f),), layout="F", features=f) for name, f in inputs.items())
    task = replace(task, inputs=said, target=wanted, missing=missing or "", note=note)
    return finish(task, seed, limit, None if isinstance(columns, Mapping) else "columns")


def _judging(path: Path, wanted: str) -> Any:
    """A table of rows that only judge."""
    frame = read(path)
    if wanted not in frame.columns:
        raise UnknownName(
            "column", wanted, frame.columns, f"{path} needs the target, as the first table has it."
        )
    return frame


def _used(frame: Any, columns: Columns | Mapping[str, Columns] | None) -> dict[str, bool]:
    """The columns that the network is fed from, and whether what stands for a missing value is known of each."""
    if columns is None:
        return dict.fromkeys(frame.columns, False)
    each = list(columns.values()) if isinstance(columns, Mapping) else [columns]
    used: dict[str, bool] = {}
    for feature in (f for words in each for f in asked(frame, words, coded=True)):
        used[feature.column] = used.get(feature.column, True) and feature.fill is not None
    return used


def _inputs(
    path: Path, frame: Any, columns: Columns | Mapping[str, Columns] | None
) -> dict[str, tuple[Feature, ...]]:
    """Per input of the network, what each of its numbers is."""
    if columns is None:
        return {"input": usual(frame, path)}
    if isinstance(columns, Mapping):
        return {name: asked(frame, words, coded=True) for name, words in columns.items()}
    return {"input": asked(frame, columns)}


def _settle(
    frames: dict[str, Any], used: dict[str, bool], wanted: str, way: str | None, what: Mapping[str, Any]
) -> str:
    """Refuse missing values or leave their rows out (in place); gives what was done, in words.

    used: as `_used` gives it, and the target.
    """
    said = []
    for role, frame in frames.items():
        absent = [name for name in used if name not in frame.columns]
        if absent:
            raise BadInput(f"{what[role]} has no column '{absent[0]}', which the first table has")
        counts = holes(frame, used)
        if way == "drop" and counts:
            kept = frame.dropna(subset=list(used))
            if len(kept) == 0:
                raise BadInput(
                    f"{what[role]}: every row misses a value; say --missing median, or --drop columns"
                )
            said.append(f"{len(frame) - len(kept):,} of {len(frame):,} rows of {what[role]} were left out")
            frames[role] = kept.reset_index(drop=True)
        elif way == "median":
            refuse_missing(
                what[role],
                holes(frame, [wanted]),
                "that is the target: leave those rows out (--missing drop)",
            )
        else:
            bare = {name: count for name, count in counts.items() if not used[name]}
            refuse_missing(what[role], bare, "fill them first, or say --missing median or --missing drop")
        refuse_infinite(what[role], frames[role], used)
    return f"{' and '.join(said)}, because values are missing there" if said else ""


def _training_rows(targets: dict[str, np.ndarray], kind: Kind, seed: int) -> np.ndarray:
    """The rows of the first table that will be for training: nothing may be learned from the others."""
    places, _ = divide({r: torch.from_numpy(y) for r, y in targets.items()}, seed, kind == "classification")
    return places["train"][1].numpy()


def _columns(frame: Any, names: str | tuple[str, ...]) -> list[str]:
    wanted = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in frame.columns:
            raise UnknownName("column", name, frame.columns)
    return wanted


def _target(path: Path, frame: Any, target: str | None) -> str:
    listed = ", ".join(map(str, frame.columns[:8])) + (", ..." if len(frame.columns) > 8 else "")
    if target is not None:
        if target not in frame.columns:
            raise UnknownName("column", target, frame.columns, f"{path} has {listed}.")
        return target
    usual = [c for c in frame.columns if c.lower() in _USUAL]
    if len(usual) != 1:
        raise BadInput(f"{path}: which column is the target? Say target=NAME. It has {listed}")
    return usual[0]


def _kind(y: np.ndarray) -> Kind:
    """As for arrays, but many different whole numbers (prices, counts) are values."""
    return kind_of(y.astype(np.float64) if y.dtype.kind in "iu" else y)
