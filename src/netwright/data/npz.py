"""The user's arrays: an .npz with x and y, or with x_train, y_train and any of x_val, y_val, x_test, y_test.

A network with several inputs has them under their own names: left and right, or left_train, right_train, ...
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from netwright.core.errors import BadInput
from netwright.core.signature import Input
from netwright.core.task import Kind, Task
from netwright.data.finish import finish
from netwright.data.targets import encode, kind_of

_ROLES = ("train", "val", "test")


class Part(NamedTuple):
    """The arrays of one split: inputs (N, ...) each, targets (N,) or (N, L)."""

    inputs: tuple[np.ndarray, ...]
    targets: np.ndarray


def load(
    path: Path,
    seed: int = 0,
    limit: int | None = None,
    kind: Kind | None = None,
    unseen: str | Path | None = None,
    inputs: Sequence[str] | None = None,
) -> Task:
    """Float inputs are taken as they are; uint8 inputs of 3 or 4 dimensions are images, the first is normalised.

    x: (N, ...); images (N, H, W), (N, C, H, W) or (N, H, W, C). y: (N,) numbers or names, or (N, L) of 0 and 1.
    inputs: the network's names for its inputs, in its order; default x, or else all but y in alphabetical order.
    One of val and test given: it is halved. Neither: 15 % each are divided off. unseen: another such file, whose
    x and y (or x_test and y_test) are halved for validation and test; then x and y here are all for training.
    """
    arrays = read(path)
    divided = any(name.endswith("_train") for name in arrays)
    names = _input_names(path, arrays, "_train" if divided else "", inputs)
    parts = {"train": _part(path, arrays, names, "_train" if divided else "")}
    if unseen is not None:
        parts["test"] = judging(Path(unseen), names)
    elif divided:
        for role in _ROLES[1:]:
            if any(f"{name}_{role}" in arrays for name in (*names, "y")):
                parts[role] = _part(path, arrays, names, f"_{role}")
    return _task(path, names, parts, seed, limit, kind, inputs)


def _input_names(
    path: Path, arrays: dict[str, np.ndarray], suffix: str, wanted: Sequence[str] | None
) -> tuple[str, ...]:
    """What the arrays of the inputs are called, in the network's order, without the split's suffix."""
    stems = {name.removesuffix(suffix) for name in arrays if name.endswith(suffix)} - {"y"}
    if wanted and (len(wanted) > 1 or wanted[0] in stems):
        missing = [name for name in wanted if name not in stems]
        if missing:
            raise BadInput(
                f"{path} has no array '{missing[0]}{suffix}'; the network takes {', '.join(wanted)}, "
                f"and the file holds {_listed(arrays)}"
            )
        return tuple(wanted)
    if "x" in stems or not stems or (wanted and len(stems) > 1):
        return ("x",)
    return tuple(sorted(stems))


def judging(path: Path, names: tuple[str, ...]) -> Part:
    """The rows of a file that only judge: x_test and y_test, or x and y."""
    arrays = read(path)
    return _part(path, arrays, names, "_test" if "y_test" in arrays else "")


def _part(path: Path, arrays: dict[str, np.ndarray], names: tuple[str, ...], suffix: str) -> Part:
    for name in (*names, "y"):
        if name + suffix not in arrays:
            raise BadInput(f"{path} has no array '{name}{suffix}'; it holds {_listed(arrays)}")
    y = arrays[f"y{suffix}"]
    for name in names:
        _check_pair(path, name + suffix, f"y{suffix}", arrays[name + suffix], y)
    return Part(tuple(_images(arrays[name + suffix]) for name in names), y)


def _listed(arrays: dict[str, np.ndarray]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file; nothing in it can run code."""
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise BadInput(f"{path} is a single array, not an .npz; save it with np.savez(path, x=x, y=y)")
        with file:
            _check_size(path, file.zip)
            return {name: file[name] for name in file.files}
    except ValueError as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise BadInput(
                f"{path} holds Python objects, which could run code when loaded; save plain numbers, or text "
                "as an array of strings"
            ) from None
        raise BadInput(f"{path} is damaged ({error})") from error
    except (zipfile.BadZipFile, EOFError, zlib.error, KeyError, SyntaxError, MemoryError) as error:
        raise BadInput(f"{path} is truncated or no .npz file ({error})") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error})") from error


def _check_size(path: Path, archive: zipfile.ZipFile) -> None:
    needed = sum(info.file_size for info in archive.infolist())
    free = psutil.virtual_memory().available
    if needed > 0.8 * free:
        raise BadInput(f"{path} unpacks to {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free")


def _check_pair(path: Path, x_name: str, y_name: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim < 2:
        raise BadInput(
            f"{path}: {x_name} has shape {x.shape}; the first dimension counts examples, so at least 2"
        )
    if y.ndim == 0 or len(x) != len(y):
        raise BadInput(f"{path}: {x_name} has {len(x)} examples, {y_name} has {len(y) if y.ndim else 0}")
    if len(x) == 0:
        raise BadInput(f"{path}: {x_name} is empty")


def _task(
    path: Path, names: tuple[str, ...], parts: dict[str, Part], seed: int, limit: int | None, kind: Kind | None,
    wanted: Sequence[str] | None,
) -> Task:  # fmt: skip
    what, train = path.name, parts["train"]
    for role, part in parts.items():
        for name, given, first in zip(names, part.inputs, train.inputs, strict=True):
            if given.shape[1:] != first.shape[1:]:
                raise BadInput(
                    f"{what}: {name} of {role} has shape {given.shape[1:]}, that of train {first.shape[1:]}"
                )
    kind = kind or kind_of(train.targets)
    targets, classes = encode({role: part.targets for role, part in parts.items()}, kind, what)
    given = {role: (_fed(part.inputs), targets[role]) for role, part in parts.items()}
    task = Task.from_arrays(
        *given["train"], val=given.get("val"), test=given.get("test"), name=path.stem, kind=kind,
        classes=classes, seed=seed,
    )  # fmt: skip
    called = names if names != ("x",) else tuple(wanted or ("input",))
    inputs = tuple(
        Input(name, x.shape[1:], layout=_layout(x.shape[1:]))
        for name, x in zip(called, train.inputs, strict=True)
    )
    task = replace(task, inputs=inputs, target="y")
    image = train.inputs[0].dtype == np.uint8 and train.inputs[0].ndim == 4
    return finish(task, seed, limit, "image" if image else None)


def _fed(inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Only the first input is normalised, and until then stays bytes; further ones become floats at once."""
    return (inputs[0], *(x.astype(np.float32) if x.dtype == np.uint8 else x for x in inputs[1:]))


def _layout(shape: tuple[int, ...]) -> str:
    """The axes of an input, as far as its shape tells."""
    if len(shape) == 1:
        return "F"
    if len(shape) == 3 and (shape[0] in (1, 3)) != (shape[2] in (1, 3)):
        return "CHW" if shape[0] in (1, 3) else "HWC"
    return ""


def _images(x: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) and (N, H, W, C) become (N, C, H, W); everything else stays."""
    if x.dtype == np.uint8 and x.ndim == 3:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x
