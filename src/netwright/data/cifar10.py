"""cifar10: 60,000 photographs of 32x32 pixels (Krizhevsky, Learning Multiple Layers of Features, 2009)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from netwright.core.division import cut, halves
from netwright.core.errors import BadInput
from netwright.core.split import ArraySplit, Normalise
from netwright.core.task import Task
from netwright.data.archive import readable
from netwright.data.augment import flip_and_crop
from netwright.data.decode import Broken, pixels
from netwright.data.places import require
from netwright.data.rows import Rows, cached_rows
from netwright.data.sources import source

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_SHAPE = (3, 32, 32)
_KIND = "tar archive"
_RECORD = 1 + 3 * 32 * 32


def load(seed: int = 0, limit: int | None = None) -> Task:
    """The official 50,000 for training, flipped and shifted; halves of the test images at hand judge.

    From the official binary archive, or from the JPEG copy in NETWRIGHT_DATA (lossy, part of the test images:
    the task's `note` says so).
    """
    paths = require(source("cifar10"))
    jpeg = len(paths) == 2
    key = ("cifar10", *((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths))
    parts = cached_rows(key, _SHAPE, lambda: _jpeg(paths) if jpeg else _binary(paths[0]))
    (x, y), (x_test, y_test) = parts["train"], parts["test"]
    train = cut(torch.arange(len(y)), seed, limit)
    val, test = halves(y_test, seed, stratify=True)
    normalise = Normalise([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], scale=1 / 255)
    return Task(
        "cifar10", "classification",
        ArraySplit((x[train],), y[train], normalise),
        ArraySplit((x_test[val],), y_test[val], normalise),
        ArraySplit((x_test[test],), y_test[test], normalise),
        10, CLASSES, "image", normalise, flip_and_crop,
        f"JPEG copies (lossy), {len(y_test):,} of 10,000 test images" if jpeg else "", "halved",
    )  # fmt: skip


def _binary(path: Path) -> Iterator[tuple[str, Rows]]:
    """The official binary version: batches of records, a label byte and 3,072 bytes of pixels, channel first."""
    counts = {"train": 50_000, "test": 10_000}
    for role, pattern in (("train", "data_batch_"), ("test", "test_batch")):
        yield role, Rows(counts[role], lambda pattern=pattern: _records(path, pattern))


def _records(path: Path, pattern: str) -> Iterator[tuple[np.ndarray, int]]:
    with readable(path, _KIND), tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if not (member.isfile() and Path(member.name).name.startswith(pattern)):
                continue
            data = archive.extractfile(member).read()  # type: ignore[union-attr]
            if len(data) % _RECORD:
                raise BadInput(f"{path}: {member.name} is truncated; delete the archive and fetch it again")
            for record in np.frombuffer(data, np.uint8).reshape(-1, _RECORD):
                yield record[1:].reshape(_SHAPE), int(record[0])


def _jpeg(paths: list[Path]) -> Iterator[tuple[str, Rows]]:
    """The JPEG copy: archives of <split>/<class>/<number>.jpg."""
    for role, path in zip(("train", "test"), paths, strict=True):
        with readable(path, _KIND), tarfile.open(path) as archive:
            count = sum(member.isfile() for member in archive)
        yield role, Rows(count, lambda path=path: _decoded(path))


def _decoded(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    with readable(path, _KIND), tarfile.open(path) as archive:
        for member in archive:
            if not member.isfile():
                continue
            name = Path(member.name).parent.name
            if name not in CLASSES:
                raise BadInput(f"{path}: {member.name} lies in no folder of a CIFAR-10 class")
            data = archive.extractfile(member).read()  # type: ignore[union-attr]
            try:
                yield pixels(data, _SHAPE), CLASSES.index(name)
            except Broken as error:
                raise BadInput(f"{path}: {member.name} is broken ({error})") from error
