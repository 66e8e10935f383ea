"""New data for a network that is ready: raw rows, pictures or arrays, fed as its file's signature says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from netwright.core.errors import BadInput
from netwright.core.files.paths import exists
from netwright.core.signature import Input, Signature
from netwright.data import npz
from netwright.data.archive import Member, members
from netwright.data.decode import Broken, pixels
from netwright.data.features import encode_rows
from netwright.data.frame import read, texts
from netwright.data.layout import SUFFIXES, is_picture

_TABLES = (".csv", ".tsv", ".parquet")


class Part(NamedTuple):
    """Some rows: their names, the inputs (B, ...) of the file, and the truth (B,) or (B, L), NaN where it is unknown;
    classes are numbered as the signature has them, -1 is one that it does not have."""

    names: list[str]
    inputs: tuple[np.ndarray, ...]
    truth: np.ndarray | None


@dataclass(frozen=True)
class Fresh:
    """count: how many rows there are. parts: reads them, so many at a time. notes: what the user should know, complete
    when all parts have been read."""

    count: int
    parts: Callable[[int], Iterator[Part]]
    notes: list[str]


def open_fresh(
    data: Any, inputs: Sequence[Input], signature: Signature | None, file: str, target: str | None = None
) -> Fresh:
    """data: a path (table, picture, folder or archive of pictures, .npz), a data frame, or arrays by name.

    inputs: what the file takes, which may be known without a signature (a size of -1 may vary); then only arrays can
    be read. target: the column or array that holds the truth, default as the signature says. BadInput in one line
    for what does not fit.
    """
    arrays = data if isinstance(data, Mapping) else None
    path = Path(data) if isinstance(data, (str, Path)) else None
    if path is not None and not exists(path):
        raise BadInput(f"{path}: no such file or folder")
    if path is not None and path.suffix.lower() == ".npz":
        arrays = npz.read(path)
    if arrays is not None:
        return _of_arrays(str(path or "the data"), arrays, inputs, signature, file, target)
    if signature is None:
        raise BadInput(
            f"{file} carries no signature, which says what raw data are for it; `netwright improve` and `export` "
            "write one. Without it, give an .npz with its input arrays"
        )
    if path is None or path.suffix.lower() in _TABLES:
        frame = data if path is None else read(path)
        return _of_table(str(path or "the table"), frame, signature, file, target)
    return _of_pictures(path, signature, file)


def _wanted(signature: Signature) -> str:
    """The raw data that a file takes, in words."""
    columns = list(dict.fromkeys(f.column for i in signature.inputs for f in i.features))
    if columns:
        more = ", ..." if len(columns) > 8 else ""
        return f"a table with the columns {', '.join(columns[:8])}{more} (or arrays in an .npz)"
    if len(signature.inputs) == 1 and signature.inputs[0].pixels:
        return "pictures: one, a folder or a zip of them (or arrays in an .npz)"
    return "an .npz with " + " and ".join(
        f"'{i.name}' ({'x'.join(map(str, i.shape)) or 'single numbers'}, {i.type})" for i in signature.inputs
    )


def _of_table(what: str, frame: Any, signature: Signature, file: str, target: str | None) -> Fresh:
    if not all(given.features for given in signature.inputs):
        raise BadInput(f"{file} takes {_wanted(signature)}, but {what} is a table")
    notes = [line for given in signature.inputs for line in _strangers(frame, given)]
    encoded = tuple(encode_rows(frame, given.features, what).astype(given.type) for given in signature.inputs)
    wanted = target or signature.target
    if target is not None and target not in frame.columns:
        raise BadInput(f"{what} has no column '{target}'; it has {', '.join(map(str, frame.columns[:30]))}")
    truth = _numbered(texts(frame[wanted]), signature) if wanted in frame.columns else None
    return _whole([str(i) for i in range(len(frame))], encoded, truth, notes)


def _strangers(frame: Any, given: Input) -> Iterator[str]:
    """A line for each column with texts that no feature names: they are 0 in all of them."""
    values: dict[str, set[str]] = {}
    for feature in given.features:
        if feature.value is not None and feature.column in frame.columns:
            values.setdefault(feature.column, set()).add(feature.value)
    for column, known in values.items():
        held = texts(frame[column].dropna())
        strange = held[~np.isin(held, list(known))]
        if len(strange):
            yield (
                f"column '{column}' holds '{strange[0]}', which is none of the values that the network takes "
                f"({', '.join(sorted(known))}): 0 for all of them, in {len(strange):,} of {len(frame):,} rows"
            )


def _of_pictures(path: Path, signature: Signature, file: str) -> Fresh:
    given = signature.inputs[0]
    if len(signature.inputs) > 1 or not given.pixels or len(given.shape) != 3:
        raise BadInput(f"{file} takes {_wanted(signature)}, but {path} is no such data")
    single = not path.is_dir() and path.suffix.lower() in SUFFIXES
    source = (lambda: iter([_one(path)])) if single else (lambda: members(path))
    names = [member.name for member in source() if is_picture(member.name)]
    if not names:
        raise BadInput(f"{path} holds no pictures ({', '.join(SUFFIXES[:3])}, ...)")
    labels = [_label(name, signature) for name in names]
    labelled, notes = any(label is not None for label in labels), []
    order = _order(given)
    shape: Any = tuple(given.shape[order.index(axis)] for axis in range(3))

    def parts(size: int) -> Iterator[Part]:
        kept: list[tuple[str, np.ndarray, float]] = []
        broken: list[str] = []
        for member in source():
            if not is_picture(member.name):
                continue
            try:
                image = pixels(member.read(), shape)
            except (Broken, OSError) as error:
                broken.append(f"{member.name} ({error})")
                continue
            label = _label(member.name, signature)
            kept.append((member.name, image, np.nan if label is None else label))
            if len(kept) == size:
                yield _pictures(kept, given, labelled)
                kept = []
        if kept:
            yield _pictures(kept, given, labelled)
        if broken:
            notes.append(
                f"{len(broken)} of {len(names):,} pictures are broken and left out: {', '.join(broken[:3])}"
            )
        if len(broken) == len(names):
            raise BadInput(f"{path}: none of the pictures can be read: {', '.join(broken[:3])}")

    return Fresh(len(names), parts, notes)


def _one(path: Path) -> Member:
    found = path.stat()
    return Member(path.name, found.st_size, found.st_mtime_ns, path.read_bytes)


def _label(name: str, signature: Signature) -> int | None:
    """The class whose folder a picture lies in, the outermost one first."""
    if signature.kind != "classification":
        return None
    folders = PurePosixPath(name).parts[:-1]
    return next((signature.classes.index(f) for f in folders if f in signature.classes), None)


def _order(given: Input) -> tuple[int, ...]:
    """Where the axes of an input's pictures stand in (C, H, W)."""
    return tuple(map("CHW".index, given.layout)) if sorted(given.layout) == ["C", "H", "W"] else (0, 1, 2)


def _pictures(kept: list[tuple[str, np.ndarray, float]], given: Input, labelled: bool) -> Part:
    x = np.stack([image for _, image, _ in kept])
    x = x.transpose(0, *(1 + axis for axis in _order(given))).astype(given.type)
    truth = np.array([label for *_, label in kept])
    return Part([name for name, *_ in kept], (np.ascontiguousarray(x),), truth if labelled else None)


def _of_arrays(
    what: str, arrays: Mapping[str, Any], inputs: Sequence[Input], signature: Signature | None, file: str,
    target: str | None,
) -> Fresh:  # fmt: skip
    """Under the input's own names, or x for a single one; where there are none, those of the test split."""
    own = [i.name for i in inputs]
    choices = [own, ["x"]] if len(own) == 1 else [own]
    choices += [[f"{name}_test" for name in names] for names in choices]
    names = next((c for c in choices if all(name in arrays for name in c)), None)
    if names is None:
        raise BadInput(
            f"{what} has no array {' or '.join(repr(n) for n in own if n not in arrays)}, which {file} takes"
            f"{' (or x)' if len(own) == 1 else ''}; it holds {', '.join(sorted(arrays)) or 'nothing'}"
        )
    suffix = "_test" if names[0].endswith("_test") and names != own else ""
    notes = [f"of the rows for testing in {what} ({', '.join(names)})"] if suffix else []
    fed = [
        _fitting(np.asarray(arrays[n]), i, f"{what}: {n}", file) for n, i in zip(names, inputs, strict=True)
    ]
    if len({len(a) for a in fed}) > 1:
        raise BadInput(
            f"{what}: {', '.join(f'{n} has {len(a)} rows' for n, a in zip(names, fed, strict=True))}"
        )
    known = [target] if target else [signature.target if signature else "", f"y{suffix}"]
    label = next((name for name in known if name in arrays), None)
    if target and label is None:
        raise BadInput(f"{what} has no array '{target}'; it holds {', '.join(sorted(arrays))}")
    y = None if label is None or signature is None else np.asarray(arrays[label])
    if y is not None and len(y) != len(fed[0]):
        raise BadInput(f"{what}: {names[0]} has {len(fed[0])} rows, {label} has {len(y)}")
    truth = None if y is None or signature is None else _numbered(y, signature)
    cast = tuple(a.astype(i.type, copy=False) for a, i in zip(fed, inputs, strict=True))
    return _whole([str(i) for i in range(len(fed[0]))], cast, truth, notes)


def _fitting(x: np.ndarray, given: Input, what: str, file: str) -> np.ndarray:
    """(N, *shape); pictures of another layout are turned, from (C, H, W) where the shape cannot tell."""
    fits = lambda a: (
        a.ndim == len(given.shape) + 1
        and all(want in (-1, has) for want, has in zip(given.shape, a.shape[1:], strict=True))
    )
    ways = [x]
    if x.ndim == 3 and len(given.shape) == 3:
        ways += [x[:, None], x[..., None]]
    elif x.ndim == 4 and given.layout == "CWH":
        ways = [x.transpose(0, 1, 3, 2)]
    elif x.ndim == 4:
        ways += [x.transpose(0, 2, 3, 1), x.transpose(0, 3, 1, 2)]
    found = next((way for way in ways if fits(way)), None)
    if found is None or x.dtype.kind not in "buif":
        wanted = "x".join("?" if s == -1 else str(s) for s in given.shape)
        has = "x".join(map(str, x.shape[1:])) or "single numbers"
        raise BadInput(f"{what} has rows of {has} ({x.dtype}), but {file} takes {wanted} ({given.type})")
    if len(found) == 0:
        raise BadInput(f"{what} is empty")
    return np.ascontiguousarray(found)


def _numbered(y: np.ndarray, signature: Signature) -> np.ndarray:
    """The truth as numbers: (N,) or (N, L) float64."""
    if signature.kind == "classification" and y.dtype.kind in "bU":
        places = {name: float(i) for i, name in enumerate(signature.classes)} | {"": np.nan}
        return np.array([places.get(str(value), -1.0) for value in y.tolist()])
    try:
        if y.dtype.kind == "U":
            y = np.where(y == "", "nan", y)
        return y.astype(np.float64)
    except ValueError:
        raise BadInput(
            f"the target '{signature.target or 'y'}' holds text where the network gives numbers"
        ) from None


def _whole(
    names: list[str], inputs: tuple[np.ndarray, ...], truth: np.ndarray | None, notes: list[str]
) -> Fresh:
    def parts(size: int) -> Iterator[Part]:
        for i in range(0, len(names), size):
            rows = slice(i, i + size)
            yield Part(names[rows], tuple(x[rows] for x in inputs), None if truth is None else truth[rows])

    return Fresh(len(names), parts, notes)
