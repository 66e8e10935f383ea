"""A file of CSV, TSV or Parquet as a pandas data frame; its missing values counted."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from netwright.core.errors import BadInput, MissingExtra


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


def plain(column: Any) -> np.ndarray:
    """A column without missing values as numpy numbers, flags or text."""
    values = column.to_numpy()
    return values if values.dtype.kind in "buif" else texts(column)


def texts(column: Any) -> np.ndarray:
    """(N,) text of each value, '' where it is missing; whole numbers without a decimal point, however stored."""
    held = column.notna().to_numpy()
    out = np.full(len(column), "", dtype=object)
    values = column.to_numpy()[held]
    if (
        values.dtype.kind == "f"
        and bool((values == np.round(values)).all())
        and bool((abs(values) < 2**53).all())
    ):
        values = values.astype(np.int64)
    out[held] = [str(v).strip() if isinstance(v, str) else str(v) for v in values]
    return out.astype(np.str_)


def missing(frame: Any, columns: Iterable[str]) -> dict[str, int]:
    """How many values are missing, of the columns that miss any."""
    counts = {name: int(frame[name].isna().sum()) for name in columns}
    return {name: count for name, count in counts.items() if count}


def refuse_missing(what: Any, counts: dict[str, int], remedy: str) -> None:
    """One line with every column that misses values, and how many."""
    if counts:
        listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise BadInput(
            f"{what}: missing values in {len(counts)} column{'s' * (len(counts) > 1)} ({listed}); {remedy}"
        )


def refuse_infinite(what: Any, frame: Any, columns: Iterable[str]) -> None:
    for name in columns:
        if frame[name].dtype.kind == "f" and np.isinf(frame[name].to_numpy()).any():
            raise BadInput(f"{what}: column '{name}' holds infinite values; clean or drop them first")
