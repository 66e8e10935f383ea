"""A folder that Hugging Face `datasets` saved (`save_to_disk`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from netwright.core.errors import BadInput, MissingExtra, UnknownName
from netwright.core.signature import Feature, Input
from netwright.core.task import Kind, Task
from netwright.data.archive import Member
from netwright.data.finish import finish
from netwright.data.pictures import Source, task_of_pictures
from netwright.data.targets import encode, kind_of

_USUAL = ("label", "labels", "target", "class", "y", "fine_label")
_ROLES = {"train": "train", "validation": "val", "val": "val", "dev": "val", "test": "test"}


def load(
    path: Path,
    seed: int = 0,
    limit: int | None = None,
    target: str | None = None,
    size: int | str | tuple[int, int] | None = None,
    channels: int | None = None,
    kind: Kind | None = None,
    unseen: str | Path | None = None,
) -> Task:
    """Images or numeric columns. Splits train, validation and test are honoured; where one of the latter is missing
    the other is halved, where both are, 15 % each are divided off. unseen: another such folder, whose rows (its test
    split, where it has splits) are halved for validation and test; then all others are for training.

    target: the column to predict (default: label or the like). Images become (C, H, W) uint8 as in an image
    folder; numeric columns become (F,) or, if there is one only, whatever shape it has.
    """
    parts = _open(path)
    train = parts["train"]
    if unseen is not None:
        parts = {"train": train}
    column = _target(path, train, target)
    fresh = None if unseen is None else _judging(Path(unseen), train, column)
    others = [name for name in train.column_names if name != column]
    images = [n for n in others if type(train.features[n]).__name__ == "Image"]
    if images:
        if kind not in (None, "classification"):
            raise BadInput(f"{path}: image data is read for classification, not for {kind}")
        names = _class_names(path, train, column)
        listed = lambda where, held: Source(
            str(where), lambda: _pictures(held, images[0], column, names, where)
        )
        task = task_of_pictures(
            listed(path, parts), path.name, seed, limit, size, channels, tuple(f"{i:06d}" for i in range(len(names))),
            None if fresh is None else listed(unseen, {"test": fresh}),
        )  # fmt: skip
        return replace(task, classes=tuple(map(str, names)))
    if fresh is not None:
        parts["test"] = fresh
    given = {role: (_inputs(path, part, others), _column(part, column)) for role, part in parts.items()}
    chosen = kind or kind_of(given["train"][1])
    targets, classes = encode({r: y for r, (_, y) in given.items()}, chosen, path.name)
    classes = tuple(getattr(train.features[column], "names", None) or classes)
    pairs = {role: (given[role][0], targets[role]) for role in given}
    task = Task.from_arrays(
        *pairs["train"], val=pairs.get("val"), test=pairs.get("test"), name=path.name, kind=chosen,
        classes=classes, seed=seed,
    )  # fmt: skip
    shape = task.input_shape
    inputs = (
        Input("input", shape, layout="F", features=tuple(Feature(name) for name in others))
        if shape == (len(others),)
        else Input(others[0], shape)
    )
    return finish(replace(task, inputs=(inputs,), target=column), seed, limit, None)


def _open(path: Path, judging: bool = False) -> dict[str, Any]:
    """Data sets by role; judging: a split named train is not needed."""
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError:
        raise MissingExtra("datasets", "huggingface", "reading a Hugging Face folder") from None
    try:
        held = load_from_disk(str(path))
    except Exception as error:  # damaged JSON, Arrow and missing files each raise their own kind
        reason = str(error).strip().splitlines()
        raise BadInput(
            f"{path} is no complete Hugging Face folder ({reason[0] if reason else error!r})"
        ) from error
    if not isinstance(held, DatasetDict):
        parts = {"train": held}
    else:
        parts = {_ROLES[name]: part for name, part in held.items() if name in _ROLES}
        if not parts or not (judging or "train" in parts):
            raise BadInput(f"{path} has no split named train; it has {', '.join(map(str, held))}")
    for role, part in parts.items():
        if len(part) == 0:
            raise BadInput(f"{path}: the {role} split is empty")
    return parts


def _judging(path: Path, train: Any, column: str) -> Any:
    """The rows of a folder that only judge: its test split, else validation, else the only data set."""
    parts = _open(path, judging=True)
    held = next(parts[role] for role in ("test", "val", "train") if role in parts)
    for name in train.column_names:
        if name not in held.column_names:
            raise BadInput(f"{path} has no column '{name}'; it has {', '.join(held.column_names)}")
    names = [getattr(part.features[column], "names", None) for part in (train, held)]
    if names[0] != names[1]:
        raise BadInput(f"{path} names the classes of '{column}' {names[1]}, the training rows {names[0]}")
    return held


def _target(path: Path, train: Any, target: str | None) -> str:
    columns = train.column_names
    if target is not None:
        if target not in columns:
            raise UnknownName("column", target, columns)
        return target
    usual = [name for name in columns if name.lower() in _USUAL]
    if len(usual) != 1:
        raise BadInput(f"{path}: which column is the target? Say target=NAME. It has {', '.join(columns)}")
    return usual[0]


def _column(part: Any, name: str) -> np.ndarray:
    return np.asarray(part.with_format("numpy")[name][:])


def _inputs(path: Path, part: Any, names: list[str]) -> np.ndarray:
    """(N, F) of the numeric columns, or (N, ...) of the only column."""
    arrays = []
    for name in names:
        values = _column(part, name)
        if values.dtype.kind not in "buif":
            raise BadInput(
                f"{path}: column '{name}' holds {part.features[name]}, which cannot be fed to a network as it "
                "is; tokenise it, or remove it (`remove_columns`)"
            )
        arrays.append(values)
    if not arrays:
        raise BadInput(f"{path} has no column beside the target")
    if len(arrays) == 1 and arrays[0].ndim > 1:
        return arrays[0]
    for name, values in zip(names, arrays, strict=True):
        if values.ndim != 1:
            raise BadInput(
                f"{path}: column '{name}' has shape {values.shape[1:]}; keep it alone, or flatten it"
            )
    return np.stack(arrays, 1)


def _class_names(path: Path, train: Any, column: str) -> list[Any]:
    """The classes in the order of their labels: a ClassLabel's own names, else the values that occur."""
    names = getattr(train.features[column], "names", None)
    if names is not None:
        return list(names)
    values = set(train[column])
    if None in values:
        raise BadInput(f"{path}: column '{column}' has missing values in train; remove those rows first")
    if any(isinstance(v, float) for v in values):
        raise BadInput(f"{path}: column '{column}' holds fractions; images are read for classification")
    return sorted(values)


def _pictures(
    parts: dict[str, Any], image: str, column: str, names: list[Any], what: Path
) -> Iterator[Member]:
    """Each image as if it lay in <split>/<number of the class>/<number>.png."""
    from datasets import Image

    for role, part in parts.items():
        numbered = getattr(part.features[column], "names", None) is not None
        stamp = int(part._fingerprint, 16)
        for i, row in enumerate(part.cast_column(image, Image(decode=False))):
            label, held = row[column], row[image]
            if label is None or held is None:
                raise BadInput(
                    f"{what}: row {i} of {role} has no {column if label is None else image}; remove such rows first"
                )
            if not numbered and label not in names:
                raise BadInput(f"{what}: the class '{label}' occurs in {role} but not in the training split")
            raw = _bytes(held, f"{what}: the image of row {i} of {role}")
            number = label if numbered else names.index(label)
            yield Member(f"{role}/{number:06d}/{i:09d}.png", len(raw), stamp, lambda raw=raw: raw)


def _bytes(held: dict[str, Any], what: str) -> bytes:
    """An image's file, kept inside the data set or named by it."""
    if held["bytes"] is not None:
        return held["bytes"]
    if held["path"] is None:
        raise BadInput(f"{what} is empty")
    try:
        return Path(held["path"]).read_bytes()
    except OSError as error:
        raise BadInput(f"{what} cannot be read ({error})") from error
