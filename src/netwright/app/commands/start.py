"""When a command began, and what is started with it."""

from __future__ import annotations

import time

# when this process was started, on the clock of time.monotonic, where the command is all that it does
_started: list[float] = []


def process_started() -> None:
    """The command is all that this process does: what starting Python has taken belongs to it."""
    import psutil

    _started.append(time.monotonic() - max(0.0, time.time() - psutil.Process().create_time()))


def began() -> float:
    """When the command began, on the clock of time.monotonic."""
    return _started[0] if _started else time.monotonic()


def start_workers(ray: str | None) -> None:
    """What trials are forked from loads torch while we do; not when it is Ray's."""
    if ray is None:
        from netwright.core.study.forkserver import warm

        warm()
