"""For all tests: one thread, fixed seeds, where real data is looked for, and what is skipped without it."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

CACHE = tempfile.TemporaryDirectory(
    prefix="netwright-tests-"
)  # the developer's own stays as it is, and unread
os.environ["NETWRIGHT_CACHE"] = CACHE.name
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before torch and numpy are imported, and for worker processes

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from tests.shares import beyond_their_share, by_method  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
BESIDE = ROOT.parent / "shared" / "data"
if "NETWRIGHT_DATA" not in os.environ and BESIDE.is_dir():
    os.environ["NETWRIGHT_DATA"] = str(BESIDE)

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-networks",
        action="store_true",
        help="conformance: every method on every awkward network, not on three",
    )


def data_folder(name: str) -> Path:
    """NETWRIGHT_DATA/name; skips the test, saying why, where it is not there."""
    root = os.environ.get("NETWRIGHT_DATA")
    if not root:
        pytest.skip(f"needs the data set {name}; NETWRIGHT_DATA is not set")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"needs the data set {name}; NETWRIGHT_DATA has no folder of that name")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.data("gowalla", ...)` skips where one of the folders is missing."""
    for mark in item.iter_markers("data"):
        for name in mark.args:
            data_folder(name)


@pytest.fixture
def needs_data() -> Callable[[str], Path]:
    """`folder = needs_data("gowalla")` inside a test."""
    return data_folder


@pytest.fixture(autouse=True)
def _no_history() -> None:
    """What one test's `improve` learned is nothing to the next."""
    shutil.rmtree(Path(CACHE.name) / "netwright" / "history", ignore_errors=True)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _processor_time(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """What a test takes of the processor, with its child processes; tests/shares.py adds it up by method."""
    before = sum(os.times()[:4])
    yield
    record_property("cpu", sum(os.times()[:4]) - before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = beyond_their_share(by_method(terminalreporter.getreports("")))
    if lines:
        terminalreporter.section("methods whose tests take more than their share of the processor")
        for line in lines:
            terminalreporter.line(line)
