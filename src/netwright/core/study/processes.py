"""Trials in local worker processes, watched over from the study's process.

A fork server with torch loaded starts a worker in milliseconds, and from a clean state: no threads, no locks
held, no GPU in use, unlike a fork of the user's own process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import psutil
import torch

from netwright.core.progress import Progress
from netwright.core.study.forkserver import context, main_hidden, warm
from netwright.core.study.trial import Ended, Event, Limits, Trial
from netwright.core.study.worker import serve

_LOOK = 0.1  # seconds between two looks at limits
_FAREWELL = 1.0  # seconds that a worker which has said its last may take to tidy up
_COUNT_CHILDREN = 0.5  # seconds between two searches for children, which read the whole process table


class Session(Protocol):
    """Trials under way."""

    def start(self, trial: Trial, folder: Path) -> None:
        """Start a trial, which leaves its files in `folder` (empty)."""
        ...

    def events(self) -> list[Event]:
        """What happened since the last call; waits for a moment if nothing did."""
        ...


class Runner(Protocol):
    """Where trials run."""

    def warm(self) -> None:
        """Start what takes long to start; may be called early, while the caller has something else to do."""
        ...

    def slots(self) -> int:
        """How many trials to keep under way where nobody says."""
        ...

    def session(self, parcel: Path, limits: Limits, jobs: int) -> contextlib.AbstractContextManager[Session]:
        """parcel: packed (function, shared). jobs: how many trials the study will keep under way at once.
        Whatever runs when the context closes is ended."""
        ...


class Processes:
    """Runner: a process per trial on this machine, one at a time unless told otherwise."""

    def warm(self) -> None:
        """Start the fork server, which loads torch on its own, and return at once."""
        warm()

    def slots(self) -> int:
        return 1

    @contextmanager
    def session(self, parcel: Path, limits: Limits, jobs: int) -> Iterator[Session]:
        self.warm()
        memory = limits.memory or int(0.8 * free_memory() / jobs) + parcel.stat().st_size
        running = _Running(parcel, limits.seconds, memory, max(1, torch.get_num_threads() // jobs))
        try:
            yield running
        finally:
            running.close()


@dataclass
class _Worker:
    trial: Trial
    process: BaseProcess
    pipe: Connection
    log: Path
    began: float
    memory: int = 0
    looked: float = 0.0
    children: list[psutil.Process] = field(default_factory=list)


class _Running:
    def __init__(self, parcel: Path, seconds: float | None, memory: int, threads: int) -> None:
        self.parcel, self.seconds, self.memory, self.threads = parcel, seconds, memory, threads
        self.workers: list[_Worker] = []

    def start(self, trial: Trial, folder: Path) -> None:
        ours, theirs = context.Pipe()
        log = folder.with_name(f"{folder.name}.log")
        process = context.Process(
            target=serve, args=(theirs, self.parcel, trial, folder, log, self.threads),
            name=f"netwright {trial.label}",
        )  # fmt: skip
        with main_hidden():
            process.start()
        theirs.close()
        self.workers.append(_Worker(trial, process, ours, log, time.monotonic()))

    def events(self) -> list[Event]:
        wait([w.pipe for w in self.workers], timeout=_LOOK)
        return [event for worker in list(self.workers) for event in self._look(worker)]

    def _look(self, worker: _Worker) -> list[Event]:
        """Progress of one worker, and its end if it has come, in good or bad."""
        key, ended = worker.trial.key, None
        events: list[Event] = []
        alive = worker.process.is_alive()  # asked before the pipe is read: what it sent last is not missed
        with contextlib.suppress(EOFError, OSError):
            while ended is None and worker.pipe.poll():
                message = json.loads(worker.pipe.recv_bytes())
                if "ended" in message:
                    ended = Ended(*message["ended"])
                else:
                    events.append((key, Progress(*message["progress"])))
        if ended is not None:
            worker.process.join(_FAREWELL)
        else:
            ended = self._broken(worker) if not alive else self._beyond(worker)
        if ended is not None:
            self._end(worker)
            events.append((key, ended._replace(memory=worker.memory)))
        return events

    def _broken(self, worker: _Worker) -> Ended:
        code = worker.process.exitcode or 0
        if code >= 0:
            reason = f"its process ended itself with exit code {code}"
        elif code == -signal.SIGKILL:
            reason = "its process was killed from outside (SIGKILL), perhaps by the system for want of memory"
        else:
            reason = f"its process crashed ({signal.Signals(-code).name})"
        return Ended("failed", reason, seconds=time.monotonic() - worker.began, traceback=_tail(worker.log))

    def _beyond(self, worker: _Worker) -> Ended | None:
        elapsed = time.monotonic() - worker.began
        worker.memory = max(worker.memory, used := _used(worker, self.memory))
        limit = min((s for s in (self.seconds, worker.trial.limit) if s is not None), default=None)
        if limit is not None and elapsed > limit:
            reason = f"not done after {limit:.3g} s (the limit)"
            return Ended("timed out", reason, seconds=elapsed, traceback=_tail(worker.log))
        if used > self.memory:
            reason = f"used {used / 1e9:.2g} GB (limit {self.memory / 1e9:.2g} GB)"
            return Ended("out of memory", reason, seconds=elapsed, traceback=_tail(worker.log))
        return None

    def _end(self, worker: _Worker) -> None:
        """End what is left of a worker and its children."""
        assert worker.process.pid is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.kill()  # it may not lead its group yet
        worker.process.join()
        worker.pipe.close()
        worker.log.unlink(missing_ok=True)
        self.workers.remove(worker)

    def close(self) -> None:
        for worker in list(self.workers):
            self._end(worker)


def _used(worker: _Worker, limit: int) -> int:
    """Resident bytes of a worker with all its children. Pages that several of them share are counted for each
    as long as that stays under the limit, and once when it matters, since that takes a longer look."""
    now = time.monotonic()
    try:
        main = psutil.Process(worker.process.pid)
        if now - worker.looked > _COUNT_CHILDREN:
            worker.children, worker.looked = main.children(recursive=True), now
    except psutil.Error:
        return 0
    family = [main, *worker.children]
    total = sum(_ask(p, "memory_info", "rss") for p in family)
    if total > limit and sys.platform == "linux":
        total = sum(_ask(p, "memory_full_info", "pss") for p in family)
    return total


def _ask(process: psutil.Process, question: str, figure: str) -> int:
    try:
        return getattr(getattr(process, question)(), figure)
    except psutil.Error:  # it has ended in between
        return 0


def free_memory() -> int:
    """Bytes that may still be used, by the machine and by the container that we may be in."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # 'max' where there is no limit
        free = min(free, limit - int((group / "memory.current").read_text()))
    return free


def _tail(log: Path, size: int = 4000) -> str:
    with contextlib.suppress(OSError):
        return log.read_bytes()[-size:].decode(errors="replace")
    return ""
