"""The process of which workers are forks: it has torch loaded, which takes longer than most of what they do.

Imports nothing heavy itself, so that a command can start it first and load torch while it does.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker

# torch.optim and torch.export both need dynamo, and an export more, each of which takes a second to import
_PRELOAD = [
    "torch", "torch._dynamo", "netwright.core.study.worker", "netwright.core.fit", "netwright.core.files.export",
    "torch.onnx._internal.exporter._core", "onnxscript.rewriter.onnx_fusions", "onnxscript.version_converter",
]  # fmt: skip

context = multiprocessing.get_context("forkserver")


def warm() -> None:
    """Start it, if it does not run, and return at once; it loads torch on its own."""
    with main_hidden(), _quiet_tracker():
        resource_tracker.ensure_running()  # first: it lets Ctrl-C through again when it is up
    with main_hidden(), _deaf_to_ctrl_c():
        context.set_forkserver_preload(_PRELOAD)
        forkserver.ensure_running()
    atexit.unregister(_end)
    atexit.register(_end, os.getpid())


def _end(owner: int) -> None:
    """It would end with us, but only after taking torch down, and hold our output open until then."""
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if server is not None and os.getpid() == owner:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)


@contextmanager
def main_hidden() -> Iterator[None]:
    """Workers must not run the user's script again: multiprocessing would, to find what it defines. What
    workers need of it travels in the parcel."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started here is ended by us: Ctrl-C while it still imports torch would only leave its traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _quiet_tracker() -> Iterator[None]:
    """multiprocessing's tracker cleans up what killed workers leave in shared memory; it need not complain."""
    before = os.environ.get("PYTHONWARNINGS")
    silence = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ["PYTHONWARNINGS"] = f"{before},{silence}" if before else silence
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before
