"""The user's tables: CSV, TSV or Parquet with a target column."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from netwright.core.errors import BadInput, MissingExtra, UnknownName
from netwright.core.task import Kind, Task
from netwright.data.finish import finish
from netwright.data.targets import encode, kind_of

_USUAL = ("target", "label", "class", "y")
_CATEGORIES = 50


def load(
    path: Path,
    seed: int = 0,
    limit: int | None = None,
    target: str | None = None,
    drop: str | tuple[str, ...] = (),
    kind: Kind | None = None,
) -> Task:
    """Rows (F,) float32: numbers as they are, text and flags as one column per value; standardised.

    target: the column to predict (default: one named target, label, class or y). drop: columns to leave out
    ('id,name'). kind: classification where the target is text, flags or few whole numbers, else regression.
    15 % of the rows each are validation and test. Missing values are refused, not filled.
    """
    frame = read(path)
    frame = frame.drop(columns=_columns(frame, drop))
    wanted = _target(path, frame, target)
    _complete(path, frame)
    y = _plain(frame.pop(wanted))
    chosen = kind or _kind(y)
    x = features(path, frame)
    targets, classes = encode({"train": y}, chosen, f"{path.name}, column '{wanted}'", renumber=True)
    task = Task.from_arrays(
        x, targets["train"], name=path.stem, kind=chosen, classes=classes, meaning="table", seed=seed
    )
    return finish(task, seed, limit, "columns")


def read(path: Path) -> Any:
    """The table as a pandas data frame with distinct column names."""
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtra("pandas", "tables", "reading a table") from None
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "error", pd.errors.ParserWarning
                )  # more values than names: some get lost
                frame = pd.read_csv(path, sep=_separator(path), index_col=False)
    except ImportError:
        raise MissingExtra("pyarrow", "tables", "reading Parquet") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # the parsers of pandas and pyarrow have no common base
        reason = str(error).strip().splitlines()
        raise BadInput(f"{path} is no readable table ({reason[0] if reason else error!r})") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise BadInput(f"{path}: the column '{twice[0]}' occurs twice")
    if len(frame) == 0:
        raise BadInput(f"{path} has no rows")
    return frame


def _separator(path: Path) -> str:
    """Comma, semicolon, tab or bar: whichever splits the first line into most columns."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
    return max(",;\t|", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))


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


def _complete(path: Path, frame: Any) -> None:
    """Refuse missing and infinite values, with the column's name."""
    missing = frame.isna().sum()
    if missing.any():
        worst = missing[missing > 0]
        raise BadInput(
            f"{path}: column '{worst.index[0]}' has {int(worst.iloc[0])} missing values"
            + (f", and {len(worst) - 1} more columns have some" if len(worst) > 1 else "")
            + "; fill or drop them first"
        )
    for name in frame.columns:
        if frame[name].dtype.kind == "f" and np.isinf(frame[name].to_numpy()).any():
            raise BadInput(f"{path}: column '{name}' holds infinite values; clean or drop them first")


def _plain(column: Any) -> np.ndarray:
    """A column as numpy numbers, flags or text."""
    values = column.to_numpy()
    return values if values.dtype.kind in "buif" else column.astype(str).to_numpy().astype(np.str_)


def _kind(y: np.ndarray) -> Kind:
    """As for arrays, but many different whole numbers (prices, counts) are values."""
    return kind_of(y.astype(np.float64) if y.dtype.kind in "iu" else y)


def features(path: Path, frame: Any) -> np.ndarray:
    """(N, F) float32. Text with more than 50 different values is refused: it is an identifier or free text."""
    if frame.shape[1] == 0:
        raise BadInput(f"{path} has no column beside the target")
    parts = []
    for name in frame.columns:
        values = _plain(frame[name])
        if values.dtype.kind != "U":
            parts.append(values.astype(np.float32)[:, None])
            continue
        known, codes = np.unique(values, return_inverse=True)
        if len(known) > _CATEGORIES:
            raise BadInput(
                f"{path}: column '{name}' holds text with {len(known):,} different values; leave it out with "
                f"drop={name} (--drop), or turn it into numbers"
            )
        parts.append(np.eye(len(known), dtype=np.float32)[codes])
    return np.concatenate(parts, axis=1)
