"""The user's arrays: an .npz with x and y, or with x_train, y_train and any of x_val, y_val, x_test, y_test."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from netwright.core.errors import BadInput
from netwright.core.task import Kind, Task
from netwright.data.finish import finish
from netwright.data.targets import encode, kind_of

_ROLES = ("train", "val", "test")


def load(path: Path, seed: int = 0, limit: int | None = None, kind: Kind | None = None) -> Task:
    """Float inputs are taken as they are; uint8 inputs of 3 or 4 dimensions are images and are normalised.

    x: (N, ...); images (N, H, W), (N, C, H, W) or (N, H, W, C). y: (N,) numbers or names, or (N, L) of 0 and 1.
    What is missing of val and test is divided off the training arrays (15 % each).
    """
    arrays = read(path)
    if "x_train" in arrays or "y_train" in arrays:
        pairs = {role: (f"x_{role}", f"y_{role}") for role in _ROLES}
    else:
        pairs = {"train": ("x", "y")}
    parts: dict[str, tuple[Any, Any]] = {}
    for role, (x, y) in pairs.items():
        if (x in arrays) != (y in arrays) or (role == "train" and x not in arrays):
            missing = y if x in arrays else x
            raise BadInput(
                f"{path} has no array '{missing}'; it holds {', '.join(sorted(arrays)) or 'nothing'}"
            )
        if x in arrays:
            parts[role] = (arrays[x], arrays[y])
            _check_pair(path, x, y, *parts[role])
    return _task(path, parts, seed, limit, kind)


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
    path: Path, parts: dict[str, tuple[Any, Any]], seed: int, limit: int | None, kind: Kind | None
) -> Task:
    what = path.name
    for role, (x, _) in parts.items():
        if x.shape[1:] != parts["train"][0].shape[1:]:
            raise BadInput(
                f"{what}: the {role} inputs have shape {x.shape[1:]}, those of train {parts['train'][0].shape[1:]}"
            )
    kind = kind or kind_of(parts["train"][1])
    targets, classes = encode({role: y for role, (_, y) in parts.items()}, kind, what)
    inputs = {role: _images(x) for role, (x, _) in parts.items()}
    given = {r: (inputs[r], targets[r]) for r in parts}
    task = Task.from_arrays(
        *given["train"], val=given.get("val"), test=given.get("test"), name=path.stem, kind=kind,
        classes=classes, seed=seed,
    )  # fmt: skip
    image = inputs["train"].dtype == np.uint8 and inputs["train"].ndim == 4
    return finish(task, seed, limit, "image" if image else None)


def _images(x: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) and (N, H, W, C) become (N, C, H, W); everything else stays."""
    if x.dtype == np.uint8 and x.ndim == 3:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x
