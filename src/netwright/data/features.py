"""A table's columns -> the numbers that a network takes, in its order; for training rows and for what comes later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from netwright.core.errors import BadInput, UnknownName
from netwright.core.signature import Feature
from netwright.data.frame import missing, plain, refuse_infinite, refuse_missing, texts

CATEGORIES = 50  # different texts of a column; with more it is an identifier or free text
_FLAGS = {"True": "1", "False": "0", "true": "1", "false": "0"}


def usual(frame: Any, what: Any) -> tuple[Feature, ...]:
    """Every column in order: numbers and flags as they are, text as one number per value, in alphabetical order."""
    return tuple(f for name in frame.columns for f in _column(frame[name], str(name), what))


def _column(column: Any, name: str, what: Any) -> list[Feature]:
    values = plain(column.dropna().infer_objects())  # flags among missing values are flags
    if values.dtype.kind != "U":
        return [Feature(name)]
    known = np.unique(values)
    if len(known) > CATEGORIES:
        raise BadInput(
            f"{what}: column '{name}' holds text with {len(known):,} different values; leave it out with "
            f"drop={name} (--drop), or turn it into numbers"
        )
    return [Feature(name, str(value)) for value in known]


def asked(frame: Any, columns: str | Sequence[str | Feature], coded: bool = False) -> tuple[Feature, ...]:
    """The network's own numbers: 'age, sex=male' or ['age', 'sex=male'], or features as they are.

    `column` is its number, `column=value` 1 where the column holds that. coded: a text column alone is the place of
    its value in alphabetical order.
    """
    words = [w.strip() for w in columns.split(",")] if isinstance(columns, str) else columns
    if not words:
        raise BadInput("columns names no column")
    return tuple(_asked(frame, word, coded) if isinstance(word, str) else word for word in words)


def _asked(frame: Any, word: str, coded: bool) -> Feature:
    if word in frame.columns:
        values = plain(frame[word].dropna().infer_objects())
        if values.dtype.kind != "U":
            return Feature(word)
        known = [str(v) for v in np.unique(values)]
        if coded:
            return Feature(word, codes=tuple(known))
        listed = ", ".join(f"{word}={value}" for value in known[:6]) + (", ..." if len(known) > 6 else "")
        raise BadInput(
            f"column '{word}' holds text, no numbers; name its values in your network's order: {listed}"
        )
    for place in (i for i, letter in enumerate(word) if letter == "="):
        name, value = word[:place].strip(), word[place + 1 :].strip()
        if name in frame.columns:
            known = [str(v) for v in np.unique(texts(frame[name].dropna()))]
            if value not in known:
                raise UnknownName(f"value of '{name}'", value, known, f"It holds {_some(known)}.")
            return Feature(name, value)
    raise UnknownName(
        "column", word.partition("=")[0].strip(), frame.columns, f"There is {_some(frame.columns)}."
    )


def _some(names: Sequence[Any], most: int = 30) -> str:
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def filled(frame: Any, features: Sequence[Feature]) -> tuple[Feature, ...]:
    """The same features, which know what stands for a missing value: the median of these rows, of text (and of numbers
    that are taken value by value) the most frequent one. A feature that knows it already stays."""
    fills: dict[str, float | str] = {}
    for feature in features:
        if feature.fill is not None:
            continue
        held = frame[feature.column].dropna()
        if len(held) == 0:
            raise BadInput(
                f"column '{feature.column}' holds nothing in the training rows; leave it out (--drop)"
            )
        if feature.value is None and not feature.codes:
            fills[feature.column] = float(np.median(_numbers(held, feature.column, "the table")))
        else:
            known, counts = np.unique(texts(held), return_counts=True)
            fills.setdefault(feature.column, str(known[counts.argmax()]))
    return tuple(f if f.fill is not None else replace(f, fill=fills[f.column]) for f in features)


def encode_rows(frame: Any, features: Sequence[Feature], what: Any = "the table") -> np.ndarray:
    """(N, F) float32 of a pandas data frame, a column of the result per feature.

    A missing value becomes its feature's `fill`; where there is none, it is refused. A text that no feature of its
    column names is 0 in all of them, as one-hot encoders have it; among `codes` it is refused.
    """
    columns = list(dict.fromkeys(feature.column for feature in features))
    absent = [name for name in columns if name not in frame.columns]
    if absent:
        raise BadInput(
            f"{what} has no column {_some([repr(n) for n in absent])}; it has {_some(list(frame.columns))}"
        )
    bare = [f.column for f in features if f.fill is None]
    refuse_missing(what, missing(frame, dict.fromkeys(bare)), "fill them or leave those rows out first")
    refuse_infinite(what, frame, columns)
    out = np.empty((len(frame), len(features)), np.float32)
    words: dict[str, np.ndarray] = {}
    for i, feature in enumerate(features):
        name = feature.column
        if feature.value is None and not feature.codes:
            out[:, i] = _numbers(frame[name], name, what, feature.fill)
            continue
        if name not in words:
            words[name] = np.where(frame[name].isna().to_numpy(), str(feature.fill), texts(frame[name]))
        out[:, i] = (
            words[name] == feature.value if feature.value is not None else _places(words[name], feature, what)
        )
    return out


def _numbers(column: Any, name: str, what: Any, fill: float | str | None = None) -> np.ndarray:
    """(N,) float64. Flags are 1 and 0; a number that is stored as text is read."""
    values = column.to_numpy()
    if values.dtype.kind not in "buif":
        words = [_FLAGS.get(word, word) or "nan" for word in texts(column).tolist()]
        try:
            values = np.array([float(word) for word in words])
        except ValueError:
            strange = next(word for word in words if not _is_number(word))
            raise BadInput(
                f"{what}: column '{name}' holds '{strange}' where the network takes a number"
            ) from None
    values = values.astype(np.float64)
    if fill is not None:
        values = np.where(np.isnan(values), float(fill), values)
    if not np.isfinite(values).all():
        raise BadInput(
            f"{what}: column '{name}' holds values that are no finite numbers; clean or drop them first"
        )
    return values


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _places(words: np.ndarray, feature: Feature, what: Any) -> np.ndarray:
    """(N,) place of each text among the feature's codes."""
    places = {code: i for i, code in enumerate(feature.codes)}
    strange = sorted(set(words.tolist()) - set(places))
    if strange:
        raise BadInput(
            f"{what}: column '{feature.column}' holds '{strange[0]}'; the network knows {_some(feature.codes)}"
        )
    return np.array([places[word] for word in words.tolist()], dtype=np.float64)
