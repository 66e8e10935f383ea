"""The IDX format of the MNIST family, and the tasks made from it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from netwright.core.division import cut, halves
from netwright.core.errors import BadInput
from netwright.core.split import ArraySplit, Normalise
from netwright.core.task import Task
from netwright.data.places import require
from netwright.data.sources import Source


def parse(data: bytes, what: str) -> np.ndarray:
    """IDX bytes -> array of uint8: two zeros, type 8, number of dimensions, each as 4 bytes, then the values."""
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise BadInput(f"{what} is no IDX file of bytes")
    rank = data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise BadInput(f"{what} is truncated within its header")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", rank, 4))
    expected = start + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        raise BadInput(f"{what} has {len(data):,} bytes, its header announces {expected:,}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read(path: Path) -> np.ndarray:
    """An IDX file, gzip or plain."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            data = file.read()
    except (EOFError, zlib.error, OSError) as error:
        raise BadInput(f"{path} cannot be read ({error}); delete it and fetch it again") from error
    return parse(data, str(path))


def task_of(
    source: Source, classes: Sequence[str], mean: float, std: float, seed: int, limit: int | None
) -> Task:
    """Images (1, 28, 28) uint8; the official training set is for training; validation and test are
    the halves of the official test set, which no network that was trained as usual has seen."""
    x, y, x_test, y_test = (torch.from_numpy(read(path).copy()) for path in require(source))
    y, y_test = y.long(), y_test.long()
    train = cut(torch.arange(len(y)), seed, limit)
    val, test = halves(y_test, seed, stratify=True)
    normalise = Normalise([mean], [std], scale=1 / 255)
    return Task(
        source.name, "classification",
        ArraySplit((x[train][:, None],), y[train], normalise),
        ArraySplit((x_test[val][:, None],), y_test[val], normalise),
        ArraySplit((x_test[test][:, None],), y_test[test], normalise),
        len(classes), tuple(classes), "image", normalise, division="halved",
    )  # fmt: skip
