"""The worker's side of a study: one process runs one trial, tells how it goes, and ends.

The process leads a group of its own, so that it can be ended with all its children, and ends itself when the
study's process is gone, so that kill -9 of a study leaves nothing running.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from netwright.core.errors import BadInput, CannotWrite, NetwrightError, NotApplicable
from netwright.core.progress import Progress, listen
from netwright.core.study.artefact import CannotPack, pack, unpack
from netwright.core.study.trial import Ended, Outcome, Trial

NETWORK = "network.pt"
_PAUSE = 0.1  # seconds between two reports of progress


def serve(pipe: Connection, parcel: Path, trial: Trial, folder: Path, log: Path, threads: int) -> None:
    """Run the parcel's function on a trial; the pipe carries progress and, last, how it ended.

    parcel: file with (function, shared). folder: where the network and the files of the outcome are left.
    """
    _lead_a_group(pipe)
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except FileNotFoundError:  # the study was over before we had started
        return
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()  # a segmentation fault leaves its traceback in the log
    torch.set_num_threads(threads)
    random.seed(trial.seed)
    np.random.seed(trial.seed)
    torch.manual_seed(trial.seed)
    ended = run(parcel, trial, folder, _teller(pipe))
    pipe.send_bytes(json.dumps({"ended": ended}).encode())


def _teller(pipe: Connection) -> Callable[[Progress], None]:
    last = 0.0

    def tell(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PAUSE:
            last = now
            pipe.send_bytes(json.dumps({"progress": progress}).encode())

    return tell


def run(parcel: Path, trial: Trial, folder: Path, tell: Callable[[Progress], None] | None) -> Ended:
    """The trial in this process. Nothing escapes: whatever happens is how it ended."""
    start = time.monotonic()
    try:
        function, shared = unpack(parcel, mapped=True)
        start = time.monotonic()
        with listen(tell):
            outcome = function(trial, *shared)
        seconds = time.monotonic() - start
        figures = {name: float(value) for name, value in outcome.figures.items()}
        try:
            _keep(outcome, folder)
        except OSError as error:
            return Ended("not stored", error.strerror or str(error), seconds=seconds)
        return Ended("done", "", figures, outcome.note, seconds)
    except BaseException as error:
        return _failure(error)._replace(seconds=time.monotonic() - start)


def _keep(outcome: Outcome, folder: Path) -> None:
    if outcome.network is not None:
        try:
            pack(outcome.network, folder / NETWORK)
        except CannotPack as error:
            raise CannotPack(f"the network that came out {error}") from error
    for name, content in outcome.files.items():
        if Path(name).name != name or name == NETWORK:
            raise BadInput(f"'{name}' is no name for a file of a trial")
        (folder / name).write_bytes(content)


def _failure(error: BaseException) -> Ended:
    text = str(error).strip()
    line = text.splitlines()[0] if text else ""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, CannotWrite) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return Ended("not stored", line, traceback=trace)
    if isinstance(error, NotApplicable):
        return Ended("not applicable", line, traceback=trace)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return Ended("out of memory", line or "no memory left", traceback=trace)
    if isinstance(error, NetwrightError):
        return Ended("failed", line, traceback=trace)
    return Ended("failed", f"{type(error).__name__}: {line}".removesuffix(": "), traceback=trace)


def _lead_a_group(pipe: Connection) -> None:
    """A session of our own, and two guards against outliving the study. The pipe closes when its process is
    gone: the thread then ends the group. Where a method holds the interpreter in C code that thread cannot
    run; there Linux ends us with the fork server, which goes once nobody holds its life line, so let go of it.
    """
    os.setsid()
    with contextlib.suppress(OSError, TypeError):
        os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            pipe.recv_bytes()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
