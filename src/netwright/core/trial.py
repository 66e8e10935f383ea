"""One thing to try in a study, what comes of it, and what it may use. Knows no method."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from torch import nn

from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.progress import Progress

# 'not stored' is the disk's fault, not the trial's: it ends the study and leaves no row, so that it is tried again
Status = Literal["running", "done", "failed", "not applicable", "timed out", "out of memory", "not stored"]


@dataclass(frozen=True)
class Trial:
    """A named thing to try. Two trials with the same key are the same trial, today and after a restart.

    slug: what is tried (a method's slug, for the studies of the command line).
    settings: JSON-able; with slug, seed and budget they make the key. label: for people, not part of the key.
    """

    slug: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    label: str = ""

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
    """

    seconds: float | None = None
    memory: int | None = None


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
