"""Images on disk as rows of bytes, mapped into memory: written once, read a batch at a time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from netwright.core import progress
from netwright.core.errors import BadInput
from netwright.data.places import cache_folder


class Rows(NamedTuple):
    """How many images a split has, and a function that gives them with their labels, in order."""

    count: int
    each: Callable[[], Iterator[tuple[np.ndarray, int]]]


def cached_rows(
    key: Iterable[Any], shape: tuple[int, ...], make: Callable[[], Iterable[tuple[str, Rows]]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Per split, images (N, *shape) uint8 mapped from the cache, and labels (N,) int64.

    key: all that the rows depend on. `make` is asked only if the cache has nothing for it. The folder is written
    beside its place and renamed, so that an interrupted run leaves nothing half-made.
    """
    digest = hashlib.sha256(json.dumps([*map(str, key), shape]).encode()).hexdigest()[:20]
    folder = cache_folder("images") / digest
    if not (folder / "done").exists():
        _write(folder, shape, make())
    parts = {}
    for path in sorted(folder.glob("*.labels.npy")):
        role = path.name.partition(".")[0]
        # copy on write: torch wants memory that it may write to, the file stays as it is
        images = np.load(folder / f"{role}.images.npy", mmap_mode="c")
        parts[role] = torch.from_numpy(images), torch.from_numpy(np.load(path))
    return parts


def _write(folder: Path, shape: tuple[int, ...], splits: Iterable[tuple[str, Rows]]) -> None:
    parts = list(splits)
    total = sum(rows.count for _, rows in parts)
    needed = total * int(np.prod(shape))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if needed > free:
            raise BadInput(
                f"{total:,} images of {'x'.join(map(str, shape))} need {needed / 1e9:.1f} GB in {folder.parent}, "
                f"which has {free / 1e9:.1f} GB: choose a smaller size (--size) or a --limit, or set NETWRIGHT_CACHE"
            )
        _sweep(folder.parent)
        made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    except OSError as error:
        raise BadInput(f"cannot write {folder.parent}: {error.strerror or error}") from error
    try:
        done = 0
        for role, rows in parts:
            done = _write_split(made, role, rows, shape, done, total)
        (made / "done").touch()
        try:
            os.replace(made, folder)
        except OSError:
            if not (folder / "done").exists():  # another process was not first: a real failure
                raise
    except OSError as error:
        raise BadInput(f"cannot write {folder.parent}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what runs that were killed more than a day ago left half-made."""
    for left in parent.glob(".making-*"):
        if time.time() - left.stat().st_mtime > 86_400:
            shutil.rmtree(left, ignore_errors=True)


def _write_split(folder: Path, role: str, rows: Rows, shape: tuple[int, ...], done: int, total: int) -> int:
    images = np.lib.format.open_memmap(folder / f"{role}.images.npy", "w+", np.uint8, (rows.count, *shape))
    labels = np.empty(rows.count, np.int64)
    row = -1
    for row, (pixels, label) in enumerate(rows.each()):
        images[row], labels[row] = pixels, label
        done += 1
        if done % 200 == 0:
            progress.step(done, total, "reading images")
    if row + 1 != rows.count:
        raise BadInput(f"{rows.count:,} images were announced and {row + 1:,} came; fetch or pack them again")
    images.flush()
    np.save(folder / f"{role}.labels.npy", labels)
    return done
