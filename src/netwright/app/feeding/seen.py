"""Whether the rows that judge a network are fresh: who divided them, which of them are rows of train too, and whether
the network knows its training rows by heart. What is found is said wherever figures are shown.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netwright.app.feeding.suspicion import gains
from netwright.core.errors import NotApplicable
from netwright.core.network import Inputs, as_tuple, call, device_of, evaluating, move
from netwright.core.split import LoaderSplit, Split, take
from netwright.core.task import Task

ROWS = 2_000  # of train and of val, that the network is asked about
SIGNIFICANT, LARGE = 3.0, {"accuracy": 0.05, "r2": 0.1}  # standard errors; difference of train and val
FEW = 30  # rows, below which no difference is told
SECONDS = 3.0  # for each look at a split; rows that were not reached by then are left out
JUDGED = 20_000  # rows of val and of test each, whose twins in train are looked for
HASHED = 500_000_000  # bytes of train that are looked through, the rest is left out by a seeded draw

MAY_HAVE_SEEN = (
    "we cut the validation and test rows out of the data given, so the network may have learned from them: its "
    "accuracy may be lower elsewhere, and what a method costs may look greater than it is. Name rows that it has not "
    "seen with --unseen PATH (in Python: test=), or name its own x_train and x_val"
)


@dataclass(frozen=True)
class Duplicates:
    """Rows of val and test that are equal to a row of train, inputs and target, byte by byte.

    looked: rows of each split that were looked at; complete: those were all.
    """

    val: int
    test: int
    looked: dict[str, int]
    complete: bool

    @property
    def sentence(self) -> str:
        if not self.val + self.test:
            return ""
        parts = [
            f"{count:,} of {self.looked[role]:,} {word} rows"
            for role, word, count in (("val", "validation", self.val), ("test", "test", self.test))
            if count
        ]
        part = "" if self.complete else f" (of the {self.looked['train']:,} that were looked at)"
        are = "is an exact duplicate" if self.val + self.test == 1 else "are exact duplicates"
        return (
            f"{' and '.join(parts)} {are} of training rows{part}: on those a network shows what it remembers"
        )


@dataclass(frozen=True)
class Learned:
    """The primary metric on rows of train and on validation rows; by_heart: they differ as memorising does."""

    metric: str
    train: float
    val: float
    train_rows: int
    val_rows: int
    by_heart: bool

    @property
    def sentence(self) -> str:
        if not self.by_heart:
            return ""
        words = [
            f"{100 * value:.1f} % accuracy" if self.metric == "accuracy" else f"an R2 of {value:.3f}"
            for value in (self.train, self.val)
        ]
        return (
            f"the network has learned some training rows by heart: {words[0]} on {self.train_rows:,} of them, "
            f"{words[1]} on {self.val_rows:,} validation rows"
        )


@dataclass(frozen=True)
class Seen:
    """warnings: sentences for people. figures: the same for result.json."""

    warnings: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)


def look(network: nn.Module, task: Task, given: bool) -> Seen:
    """given: the network came from the user; one that was trained here has learned from train alone."""
    twice = duplicates(task)
    learned = memorised(network, task) if given else None
    said = [
        MAY_HAVE_SEEN if given and not task.unseen else "",
        learned.sentence if learned else "",
        twice.sentence,
        task.note,
    ]
    figures = {
        "division": task.division, "rows": {r: len(getattr(task, r)) for r in ("train", "val", "test")},
        "duplicates": asdict(twice), "memorising": asdict(learned) if learned else None,
    }  # fmt: skip
    return Seen(tuple(s for s in said if s), figures)


def memorised(network: nn.Module, task: Task) -> Learned:
    """At most ROWS rows of train and of val each, by a seeded draw; significant and large is by heart."""
    train, val = (_gains(network, getattr(task, role), task.kind) for role in ("train", "val"))
    gap = (train.mean() - val.mean()).item()
    error = (
        math.sqrt(train.var().item() / len(train) + val.var().item() / len(val))
        if len(val) > 1 < len(train)
        else 0
    )
    told = min(len(train), len(val)) >= FEW and gap > max(LARGE[task.primary], SIGNIFICANT * error)
    return Learned(task.primary, train.mean().item(), val.mean().item(), len(train), len(val), told)


def _gains(network: nn.Module, split: Split, kind: str) -> Tensor:
    """What each row adds to the primary metric (N,): its mean is the accuracy, or R2."""
    outputs, targets = [], []
    device = device_of(network)
    with evaluating(network), torch.no_grad():
        for x, y in _some(split, ROWS, 32):
            outputs.append(call(network, move(x, device)).double().cpu())
            targets.append(y)
    return gains(torch.cat(outputs), torch.cat(targets), kind)


def _some(split: Split, rows: int, size: int) -> Iterator[tuple[Inputs, Tensor]]:
    """Batches of at most so many rows, by a seeded draw, for as long as there is time; of a stream the first."""
    began, count = time.monotonic(), 0
    with suppress(NotApplicable):
        split = take(split, rows, seed=0)
    for x, y in split.batches(size):
        yield x, y
        count += len(y)
        if count >= rows or time.monotonic() - began > SECONDS:
            return


def duplicates(task: Task) -> Duplicates:
    """Exact duplicates of train rows in val and test, by a hash of each row as the data hold it.

    The hashes of val and test rows are kept, those of train stream past.
    """
    hold = {role: _bare(getattr(task, role)) for role in ("train", "val", "test")}
    hashes = {role: np.concatenate(list(_hashes(hold[role], JUDGED))) for role in ("val", "test")}
    known = np.unique(np.concatenate(list(hashes.values())))
    found = np.zeros(len(known), bool)
    looked = 0
    for part in _hashes(hold["train"], _affordable(hold["train"])):
        found |= np.isin(known, part)
        looked += len(part)
    twins = known[found]
    sizes = {"train": looked, **{role: len(rows) for role, rows in hashes.items()}}
    whole = all(sizes[role] == len(split) for role, split in hold.items())
    count: Callable[[str], int] = lambda role: int(np.isin(hashes[role], twins).sum())
    return Duplicates(count("val"), count("test"), sizes, whole)


def _bare(split: Any) -> Any:
    """The split without what prepares its batches: bytes of images stay bytes."""
    return replace(split, prepare=None) if getattr(split, "prepare", None) is not None else split


def _affordable(split: Split) -> int:
    """How many rows of train are looked through. Each row of a loader's may be costly to make."""
    if isinstance(split, LoaderSplit):
        return min(len(split), JUDGED)
    x, y = next(iter(split.batches(1)))
    width = sum(t.numel() * t.element_size() for t in (*as_tuple(x), y))
    return min(len(split), max(1, HASHED // max(width, 200)))


def _hashes(split: Split, rows: int) -> Iterator[np.ndarray]:
    """A 64-bit hash per row, inputs and target, a few megabytes of rows at a time."""
    x, _ = next(iter(split.batches(1)))
    width = sum(t[:1].numel() * t.element_size() for t in as_tuple(x))
    for inputs, targets in _some(split, rows, max(1, min(16_384, 16_000_000 // max(1, width)))):
        parts = [
            np.ascontiguousarray(t.detach().cpu().reshape(len(t), -1).numpy())
            .view(np.uint8)
            .reshape(len(t), -1)
            for t in (*as_tuple(inputs), targets)
        ]
        table = np.concatenate(parts, axis=1)
        yield np.array(
            [int.from_bytes(hashlib.blake2b(row, digest_size=8).digest(), "little") for row in table],
            np.uint64,
        )
