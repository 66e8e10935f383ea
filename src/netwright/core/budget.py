"""What a method may spend, and the target it is asked to reach. Everyone in a comparison gets the same.

Work that takes no budget (an analysis, an evaluation) asks the time that is set around it:

    with within(seconds):
        analysis(network, data)      # its loops ask time_left()
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TypeVar

from netwright.core.errors import BadInput, OutOfTime

T = TypeVar("T")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Target:
    """What the owner asks for; None means 'does not matter'.

    faster, smaller: factors over the given network (2.0 is twice as fast, half as large).
    max_drop: how much of the primary metric may be lost, as a fraction (0.01 is one point).
    """

    faster: float | None = None
    smaller: float | None = None
    max_drop: float | None = None


@dataclass(frozen=True)
class Budget:
    """Seconds, epochs and samples that a method may spend (None: no limit of that kind).

    `Budget(minutes=20)` is `Budget(seconds=1200)`. Epochs count passes over the training split;
    samples count examples seen forward and backward, those of teachers and scores too.
    """

    seconds: float | None = None
    epochs: float | None = None
    samples: int | None = None
    target: Target = Target()
    minutes: float | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.minutes is not None:
            object.__setattr__(self, "seconds", 60.0 * self.minutes + (self.seconds or 0.0))
            object.__setattr__(self, "minutes", None)
        for name in ("seconds", "epochs", "samples"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise BadInput(f"a budget's {name} must not be negative, got {value}")

    def start(self) -> Meter:
        """Start the clock."""
        return Meter(self)

    def part(self, fraction: float) -> Budget:
        """The same budget, scaled."""
        return replace(
            self,
            seconds=None if self.seconds is None else self.seconds * fraction,
            epochs=None if self.epochs is None else self.epochs * fraction,
            samples=None if self.samples is None else int(self.samples * fraction),
        )


_end: ContextVar[float] = ContextVar("netwright_end", default=math.inf)  # on the clock of time.monotonic


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """What runs inside the block is to be over in so many seconds, or sooner where a block around it says so.
    None sets nothing. Nothing is cut off: loops ask `time_left` and end with what they have."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    token = _end.set(min(end, _end.get()))
    try:
        yield
    finally:
        _end.reset(token)


def time_left() -> float:
    """Seconds left of the time set around us, negative when it is over; infinite where nobody has set any."""
    end = _end.get()
    return end if end == math.inf else end - time.monotonic()


def check_time(what: str) -> None:
    """OutOfTime, which is a NotApplicable, when the time set around us is over: for work of which a part is worth
    nothing. what: the beginning of a sentence, such as 'tracing the network'."""
    if time_left() <= 0:
        raise OutOfTime(f"{what} needs more time than its budget leaves; give a larger one")


def in_time(things: Iterable[T]) -> Iterator[T]:
    """The things, the first one at least, until the time set around us is over."""
    for thing in things:
        yield thing
        if time_left() <= 0:
            return


class Meter:
    """A budget being spent. seconds: what it may take in all, the time set around it (`within`) counted; infinite
    where neither sets a limit."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.samples = 0
        self.epochs = 0.0
        self.seconds = min(math.inf if budget.seconds is None else budget.seconds, max(0.0, time_left()))
        self._start = time.monotonic()

    def spend(self, samples: int = 0, epochs: float = 0.0) -> None:
        self.samples += samples
        self.epochs += epochs

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def exhausted(self) -> bool:
        b = self.budget
        return (
            self.elapsed >= self.seconds
            or (b.epochs is not None and self.epochs >= b.epochs - 1e-9)
            or (b.samples is not None and self.samples >= b.samples)
        )

    def left(self) -> Budget:
        """What remains, as a budget for the next step of the work."""
        b = self.budget
        return replace(
            b,
            seconds=None if self.seconds == math.inf else max(0.0, self.seconds - self.elapsed),
            epochs=None if b.epochs is None else max(0.0, b.epochs - self.epochs),
            samples=None if b.samples is None else max(0, b.samples - self.samples),
        )


def parse_seconds(text: str) -> float:
    """'90s', '5m', '1h', '1h30m' or a bare number of seconds."""
    cleaned = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", cleaned):
        value = float(cleaned)
    elif re.fullmatch(r"(\d+(\.\d+)?[smh])+", cleaned):
        value = sum(float(n) * _UNITS[u] for n, u in re.findall(r"(\d+(?:\.\d+)?)([smh])", cleaned))
    else:
        raise BadInput(f"'{text}' is no length of time. Write 90s, 5m or 1h.")
    if value <= 0:
        raise BadInput(f"a budget of '{text}' leaves no time. Write 90s, 5m or 1h.")
    return value


def parse_fraction(text: str) -> float:
    """'0.01' or '1%'."""
    cleaned = text.strip()
    try:
        value = float(cleaned[:-1]) / 100 if cleaned.endswith("%") else float(cleaned)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise BadInput(f"'{text}' is no fraction. Write 0.01 or 1%.")
    return value
