"""One thing to try in a study, what comes of it, and what it may use. Knows no method."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from torch import nn

from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.progress import Progress

_TARDY = 4.0  # seconds that any trial may be late before it is ended, if there are so many

# 'not stored' is the disk's fault, not the trial's: it ends the study and leaves no row, so that it is tried again
Status = Literal["running", "done", "failed", "not applicable", "timed out", "out of memory", "not stored"]


@dataclass(frozen=True)
class Trial:
    """A named thing to try. Two trials with the same key are the same trial, today and after a restart.

    slug: what is tried (a method's slug, for the studies of the command line).
    settings: JSON-able; with slug, seed and budget they make the key. label: for people, not part of the key.
    allowed, limit: set by a study that has an end (`Limits.until`), not part of the key either: seconds that are
    left for the trial's method, and after which the trial is ended.
    """

    slug: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    label: str = ""
    allowed: float | None = field(default=None, compare=False, repr=False)
    limit: float | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.label:
            words = ", ".join(f"{name} {value}" for name, value in self.settings.items())
            object.__setattr__(self, "label", f"{self.slug} ({words})" if words else self.slug)
        self.key  # noqa: B018  settings that cannot be written down fail here, where they are given

    @cached_property
    def key(self) -> str:
        """A stable hash of slug, settings, seed and budget: 16 hexadecimal digits."""
        parts = [self.slug, dict(self.settings), self.seed, asdict(self.budget)]
        try:
            text = json.dumps(parts, sort_keys=True)
        except TypeError as error:
            raise BadInput(
                f"the settings of trial '{self.label}' cannot be written as JSON: {error}"
            ) from None
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True)
class Outcome:
    """What a trial function gives back.

    figures: numbers by name. network: a candidate to keep. files: other things to keep, by file name.
    """

    figures: Mapping[str, float]
    network: nn.Module | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Limits:
    """What one trial may use before it is ended: wall-clock seconds, starting included, and resident bytes of
    its process with all children, what it maps of the shared things included.

    memory None: an equal share, among the trials that run at once, of 80 % of what the machine (or its
    container) has free when the study starts.
    until: on the clock of time.monotonic, when the last trial is to be over. Trials then share what is left in equal
    parts as they start; those for which nothing is left are not started and leave no row. last: when what still runs
    is ended, default `until`: a later moment leaves the last trial the same room as those before it, whose delays the
    next ones bear. spare: seconds of a trial beyond its method's (evaluation, export). least: seconds below which a
    method is not worth a start.
    """

    seconds: float | None = None
    memory: int | None = None
    until: float | None = None
    last: float | None = None
    spare: float = 0.0
    least: float = 1.0

    def paced(self, trial: Trial, waiting: int, jobs: int) -> Trial | None:
        """The trial with its share of the time that is left for it and the others that wait; None: it has none."""
        if self.until is None:
            return trial
        now = time.monotonic()
        left = self.until - now
        fit = int(left / (self.spare + self.least)) * jobs
        if fit < 1:
            return None
        share = left / math.ceil(min(waiting, fit) / jobs)
        own = math.inf if trial.budget.seconds is None else trial.budget.seconds
        allowed = min(own, share - self.spare)
        ended = left if self.last is None else max(left, self.last - now)
        limit = min(ended, 1.25 * allowed + 3 * self.spare + _TARDY)
        return replace(trial, allowed=allowed, limit=limit)


class Ended(NamedTuple):
    """How a trial ended. seconds: of the trial function; memory: highest resident bytes that were seen."""

    status: Status
    reason: str = ""
    figures: dict[str, float] = {}  # noqa: RUF012  a NamedTuple's default is never changed
    note: str = ""
    seconds: float = 0.0
    memory: int = 0
    traceback: str = ""


Event = tuple[str, Progress | Ended]
