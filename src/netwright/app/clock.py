"""The time of a whole command: one clock, started with it, which every stage asks what is left."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from netwright.core.budget import within
from netwright.core.errors import BadInput

SLACK, GRACE = (
    1.25,
    30.0,
)  # a command ends within SLACK times its budget plus GRACE seconds, on a loaded machine too
OPENING = 0.3  # share of the budget that training a network may take where none is given
CLOSING = 2.0  # seconds of the processor for the last timing, the report and its pictures
_MARGIN = 5.0  # seconds of that which are kept for what cannot be cut off, such as writing files
_TELLING = 0.2  # seconds of the processor from which its pace is told
_AGAIN = 1.0  # seconds after which a cut-off comes again, should the first have been lost in a destructor


class TimeUp(BaseException):
    """A stage was cut off. No Exception, since what is cut off must not handle it as a failure of its own."""


class Clock:
    """seconds: the budget of the command (None: no end). began: on the clock of time.monotonic, default now.

    end: when the budget is over, which is what stages plan for; last: when everything is cut off. slowness: seconds on
    the clock for one of the processor, as the opening found them: 1 on a quiet machine, 4 where three others want the
    processor too.
    """

    slowness = 1.0

    def __init__(self, seconds: float | None, began: float | None = None) -> None:
        self.seconds = seconds
        self.began = time.monotonic() if began is None else began
        self.end = math.inf if seconds is None else self.began + seconds
        self.last = math.inf if seconds is None else self.began + SLACK * seconds + GRACE - _MARGIN

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds until the end of the budget, at least 0."""
        return max(0.0, self.end - time.monotonic())

    @property
    def at_most(self) -> float:
        """Seconds until everything is cut off, at least 0."""
        return max(0.0, self.last - time.monotonic())

    @contextmanager
    def command(self) -> Iterator[None]:
        """The block is the whole command: what has no answer when everything is cut off is an error that says so."""
        try:
            with cut_off(self.last):
                yield
        except TimeUp:
            raise BadInput(
                f"a budget of {self.seconds:g} s is too small here: nothing was finished in time; give a larger one"
            ) from None

    @property
    def closing(self) -> float:
        """Seconds to be kept for the last timing and the report, on this machine at this moment."""
        return min(CLOSING * self.slowness, 0.3 * (self.last - self.began))

    @contextmanager
    def opening(self) -> Iterator[None]:
        """For the opening of network and task: its share of the time, should a network have to be trained."""
        began, used = time.monotonic(), time.process_time()
        with within(None if self.seconds is None else OPENING * self.seconds):
            yield
        used = time.process_time() - used
        if used > _TELLING:
            self.slowness = max(1.0, (time.monotonic() - began) / used)


@contextmanager
def cut_off(moment: float) -> Iterator[None]:
    """What still runs at this moment (on the clock of time.monotonic) is ended by TimeUp, wherever it is.

    By a timer's signal, which only a main thread can take: in another thread nothing is cut off, and only what asks
    for the time itself ends. Blocks may be nested; the earliest moment counts.
    """
    if moment == math.inf or threading.current_thread() is not threading.main_thread():
        yield
        return

    over = False

    def ring(*_: Any) -> None:
        if not over:
            raise TimeUp

    outer, until_outer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    entered = time.monotonic()
    left = max(1e-3, moment - entered)
    try:
        if not until_outer or left < until_outer:
            signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, left, _AGAIN)
        yield
    finally:
        over = True  # before anything else: what rings from here on, late or again, belongs to no block
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer)
        if until_outer:
            left = max(1e-3, until_outer - (time.monotonic() - entered))
            signal.setitimer(signal.ITIMER_REAL, left, _AGAIN)
