"""One callback for the progress of all long work.

A method says `step(done, total, "note")`; whoever wants to show it listens:

    with listen(callback):
        method(network, task, budget)

Without a listener `step` costs one look-up. Listeners are per context, so threads and worker processes
do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Progress(NamedTuple):
    done: float
    total: float | None
    note: str


Listener = Callable[[Progress], None]
_listener: ContextVar[Listener | None] = ContextVar("netwright_progress", default=None)

_remarks: ContextVar[list[str] | None] = ContextVar("netwright_remarks", default=None)


def step(done: float, total: float | None = None, note: str = "") -> None:
    """Tell the listener, if there is one, how far the work has come."""
    listener = _listener.get()
    if listener is not None:
        listener(Progress(done, total, note))


def remark(text: str) -> None:
    """Something that a reader of the result should know, such as a training that hardly began."""
    said = _remarks.get()
    if said is not None and text not in said:
        said.append(text)


@contextmanager
def remarks() -> Iterator[list[str]]:
    """Collect every `remark` made inside the block."""
    said: list[str] = []
    token = _remarks.set(said)
    try:
        yield said
    finally:
        _remarks.reset(token)


@contextmanager
def listen(listener: Listener | None) -> Iterator[None]:
    """Hear every `step` made inside the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
