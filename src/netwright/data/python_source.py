"""python-source: the Python standard library's own sources, byte by byte, for language models."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import torch

from netwright.core.division import cut
from netwright.core.errors import BadInput
from netwright.core.split import ArraySplit
from netwright.core.task import Task

CONTEXT = 128
HELD = 512  # windows of validation and of test
_LEFT_OUT = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data",
    "turtledemo", "__pycache__",
}  # fmt: skip


def load(seed: int = 0, limit: int | None = None) -> Task:
    """Windows of 128 bytes, int64 (128,); the target of each position is the next byte.

    A file is in one split only: validation and test are 512 windows each, of files that training does not see. Tests,
    tables of characters and what is installed besides are left out; another version of Python gives other data.
    """
    train, val, test = divided(sources(Path(sysconfig.get_path("stdlib"))), seed)
    train = train[cut(torch.arange(len(train)), seed, limit)]
    splits = [ArraySplit((w[:, :-1],), w[:, 1:]) for w in (train, val, test)]
    names = tuple(repr(bytes([b]))[2:-1] for b in range(256))
    return Task("python-source", "classification", *splits, 256, names, "tokens")


def sources(folder: Path) -> list[bytes]:
    """The files' contents, in the order of their paths."""
    paths = sorted(p for p in folder.rglob("*.py") if not _LEFT_OUT & set(p.relative_to(folder).parts))
    return [path.read_bytes() for path in paths]


def divided(files: list[bytes], seed: int) -> list[torch.Tensor]:
    """Windows (N, 129) int64 of train, validation and test: whole files, drawn until a held-out split has twice the
    windows that it needs, of which a random half is taken."""
    order = np.random.default_rng(seed).permutation(len(files)).tolist()
    parts = []
    for _ in range(2):
        held: list[torch.Tensor] = []
        while sum(map(len, held)) < 2 * HELD:
            if not order:
                raise BadInput(
                    "python-source: this Python has too few of its own sources; install its library"
                )
            held.append(windows(files[order.pop()]))
        whole = torch.cat(held)
        parts.append(whole[cut(torch.arange(len(whole)), seed, HELD)])
    rest = [windows(files[i]) for i in order]
    return [torch.cat(rest) if rest else torch.empty(0, CONTEXT + 1, dtype=torch.int64), *parts]


def windows(text: bytes) -> torch.Tensor:
    """(N, 129) bytes, each window beginning with the last byte of the one before; the rest of a file is dropped."""
    count = max(0, (len(text) - 1) // CONTEXT)
    held = torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64))
    return held.unfold(0, CONTEXT + 1, CONTEXT) if count else held.new_empty(0, CONTEXT + 1)
