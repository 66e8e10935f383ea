"""Time that is not a claim's own: beds serve many claims and are trained once per machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_spent = [0.0, 0.0]


@contextmanager
def uncounted() -> Iterator[None]:
    """What runs inside is left out of the claim's time."""
    began, worked = time.monotonic(), time.process_time()
    try:
        yield
    finally:
        _spent[0] += time.monotonic() - began
        _spent[1] += time.process_time() - worked


def left_out() -> tuple[float, float]:
    """Seconds and processor seconds spent inside `uncounted` by this process so far."""
    return _spent[0], _spent[1]
