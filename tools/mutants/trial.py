"""Runs a method's tests in a copy of the repository in which one file may hold a fault.

Each run is a fork of this process, which has imported the heavy libraries once; Netwright it finds in the copy. A run
that takes too long or too much memory is ended with everything that it started.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.mutants.subject import CONFORMANCE, Subject

COPIED = ("src", "tests", "tools")
MEMORY = 12 << 30  # bytes of address space that a run may take


@dataclass(frozen=True)
class Outcome:
    """passed: every test did. by: the first test that failed, or what ended the run. durations: of the tests."""

    passed: bool
    by: str
    seconds: float
    durations: dict[str, float]


def copy_of(root: Path, folder: Path) -> Path:
    """The repository in `folder`: what a run changes or writes beside is copied, the rest is linked."""
    for entry in root.iterdir():
        if entry.name in COPIED:
            shutil.copytree(entry, folder / entry.name, ignore=shutil.ignore_patterns("*.egg-info"))
        elif not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    return folder


def warm_up() -> None:
    """What every run would import again."""
    import hypothesis  # noqa: F401
    import onnx  # noqa: F401
    import pytest  # noqa: F401
    import scipy.optimize
    import scipy.sparse
    import scipy.stats  # noqa: F401
    import sklearn.base  # noqa: F401
    import torch._dynamo
    import torch.export
    import torch.onnx

    torch.set_num_threads(1)


def plant(file: Path, source: str) -> None:
    """Compiled forms go: they are told apart by size and whole seconds only."""
    file.write_text(source, encoding="utf-8")
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
        compiled.unlink()


@dataclass(frozen=True)
class Run:
    """The tests of a method, running in a copy; seconds it may take."""

    child: int
    told: Path
    limit: float
    started: float

    def outcome(self) -> Outcome | None:
        """None while it goes on."""
        seconds = time.monotonic() - self.started
        ended, status = os.waitpid(self.child, os.WNOHANG)
        if ended:
            self._end_the_rest()
            return _outcome(self.told, status, seconds)
        if seconds < self.limit:
            return None
        self.end()
        return Outcome(False, f"the time limit of {self.limit:.0f} s", seconds, {})

    def end(self) -> None:
        """The run, and the processes of its tests, which are of its group."""
        self._end_the_rest()
        os.waitpid(self.child, 0)

    def _end_the_rest(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.child, signal.SIGKILL)


def start(copy: Path, subject: Subject, limit: float, durations: dict[str, float]) -> Run:
    """The tests of a method in this copy; the first failure ends them. durations: the quick ones come first."""
    told = copy / "outcome.json"
    told.unlink(missing_ok=True)
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_the_run(copy, subject, durations, told)
    with suppress(PermissionError, ProcessLookupError):
        os.setpgid(child, child)  # by whoever comes first: it shall have a group before it can be ended
    return Run(child, told, limit, began)


def _outcome(told: Path, status: int, seconds: float) -> Outcome:
    code = os.waitstatus_to_exitcode(status)
    if not told.exists():  # pytest never came to its end
        return Outcome(False, "it ended the whole run", seconds, {})
    found = json.loads(told.read_text())
    by = found["by"] or ("" if code == 0 else f"exit code {code} of pytest")
    return Outcome(code == 0, by, seconds, found["durations"])


def _be_the_run(copy: Path, subject: Subject, durations: dict[str, float], told: Path) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        output = os.open(copy / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(copy)
        os.environ["PYTHONPATH"] = str(copy / "src")
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(copy / ".hypothesis")
        _forget("netwright", "tools", "tests")
        sys.path[:0] = [str(copy / "src"), str(copy)]
        import pytest

        watch = _Watch(subject.slug, durations, told)
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *map(str, subject.tests)]
        code = int(pytest.main(arguments, plugins=[watch]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _forget(*packages: str) -> None:
    """Modules that this process has imported from the working tree."""
    for name in [n for n in sys.modules if n.partition(".")[0] in packages]:
        del sys.modules[name]


class _Watch:
    """A pytest plugin: quick tests first, of the conformance suite the method's part, and what came of it."""

    def __init__(self, slug: str, durations: dict[str, float], told: Path) -> None:
        self.slug, self.known, self.told = slug, durations, told
        self.found: dict[str, Any] = {"by": "", "durations": {}}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [i for i in items if self._wanted(i)]
        times: dict[str, float] = {}
        for item in items:
            times[item.path] = times.get(item.path, 0.0) + self.known.get(item.nodeid, 0.0)
        last = lambda item: item.path.name == CONFORMANCE.name
        items.sort(key=lambda i: (last(i), times[i.path], str(i.path), self.known.get(i.nodeid, 0.0)))

    def _wanted(self, item: Any) -> bool:
        if item.get_closest_marker("slow"):
            return False
        if item.path.name != CONFORMANCE.name:
            return True
        row = getattr(item, "callspec", None) and item.callspec.params.get("row")
        return row is not None and row.slug == self.slug

    def pytest_runtest_logreport(self, report: Any) -> None:
        held = self.found["durations"]
        held[report.nodeid] = held.get(report.nodeid, 0.0) + report.duration
        if report.failed and not self.found["by"]:
            self.found["by"] = report.nodeid

    def pytest_sessionfinish(self) -> None:
        self.told.write_text(json.dumps(self.found))
