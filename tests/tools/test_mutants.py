"""The faults that `make mutants` draws, and how it runs tests on them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools.mutants.examine import drawn, named
from tools.mutants.sites import Mutant, differs, mutants
from tools.mutants.subject import CONFORMANCE, subject

from netwright.core import catalogue

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''
"""A docstring with 1 < 2."""

from __future__ import annotations

SIZE: int = 3


def f(x: Tensor, y: Tensor, limit: float = 0.5) -> Tensor:
    """Not 4 of them."""
    if x.dim() < 2:
        raise BadInput(f"it has {x.dim() + 1} axes, not " + "2")
    progress.step(1, 2, "half")
    for a, b in zip(x, y, strict=True):
        x = x - g(a.detach(), b)
    return -x.amax(dim=1) * limit if not SIZE else x
'''


def replaced() -> set[tuple[str, str]]:
    """What stood there, and what stands there now."""
    return {(SOURCE[m.start : m.end], m.text) for m in mutants(SOURCE)}


@pytest.mark.parametrize(
    "fault",
    [
        ("3", "4"), ("0.5", "1.0"), ("<", ">="), ("<", "<="), ("x.dim() < 2", "True"), ("a.detach()", "(a)"),
        ("-", "+"), ("a.detach(), b", "b, a.detach()"), ("amax", "amin"), ("dim=1", ""), ("*", "/"),
        ("not SIZE", "(SIZE)"),        ("x = x - g(a.detach(), b)", "pass"), ("-x.amax(dim=1)", "(x.amax(dim=1))"),
    ],
)  # fmt: skip
def test_it_is_drawn(fault):
    assert fault in replaced()


def test_what_no_test_could_see_is_not_drawn():
    lines = SOURCE.splitlines()
    hit = {lines[m.line - 1] for m in mutants(SOURCE)}
    for what in ("docstring", "import", "4 of them", "BadInput", "progress"):
        assert not any(what in line for line in hit)
    assert not any("strict" in old or "int" in old or "Tensor" in old for old, _ in replaced())


def test_what_is_no_python_or_changes_nothing_does_not_count():
    assert not differs("x = 1", Mutant("", 1, 4, 5, "("))
    assert not differs("x = 1", Mutant("", 1, 4, 5, "(1)"))
    assert differs("x = 1", Mutant("", 1, 4, 5, "2"))
    assert all(differs(SOURCE, m) for m in mutants(SOURCE))


def test_a_draw_is_repeatable_and_another_seed_is_another_draw():
    about = subject(ROOT, "rankmixup")
    first = drawn(ROOT, about, 20, 0)
    assert len(set(first)) == 20
    assert first == drawn(ROOT, about, 20, 0)
    assert first != drawn(ROOT, about, 20, 1)
    assert len({f.mutant.kind for f in first}) > 8


def test_every_method_has_files_and_tests_of_its_own():
    for slug in catalogue.methods():
        about = subject(ROOT, slug)
        assert all((ROOT / f).is_file() for f in (*about.files, *about.tests))
        assert about.tests[-1] == CONFORMANCE
        assert len(about.tests) > 1, f"no test file imports what {slug} is made of"


def test_the_named_faults_still_fit_their_files():
    for slug in catalogue.methods():
        for fault in named(ROOT, slug):
            ast.parse(fault.mutant.of((ROOT / fault.file).read_text()))


RUN = """
import sys, time
from pathlib import Path
from tools.mutants.subject import Subject
from tools.mutants.trial import copy_of, plant, start

root, copy = map(Path, sys.argv[1:])
file = Path("src/netwright/toy.py")
copy_of(root, copy)
about = Subject("toy", (file,), (Path("tests/test_toy.py"),))
for source in ("x = 1", "x = 2", "while True: pass", "import os; os._exit(0)"):
    plant(copy / file, source)
    going = start(copy, about, 5.0 if "while" in source else 100.0, {})
    while (outcome := going.outcome()) is None:
        time.sleep(0.01)
    print(outcome.passed, outcome.by)
"""


def test_a_run_finds_the_copy_and_ends_in_time(tmp_path):
    root, copy = tmp_path / "root", tmp_path / "copy"
    (root / "src/netwright").mkdir(parents=True)
    (root / "tests").mkdir()
    copy.mkdir()
    (root / "src/netwright/__init__.py").touch()
    (root / "src/netwright/toy.py").write_text("x = 1")
    (root / "tests/test_toy.py").write_text(
        "import subprocess, sys\nfrom netwright import toy\n"
        "def test_here():\n    assert toy.x == 1\n"
        "def test_a_process():\n"
        "    ask = 'from netwright import toy; print(toy.x)'\n"
        "    assert subprocess.run([sys.executable, '-c', ask], capture_output=True, text=True).stdout == '1\\n'\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", RUN, str(root), str(copy)], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert told.stdout.splitlines() == [
        "True ",
        "False tests/test_toy.py::test_here",
        "False the time limit of 5 s",
        "False it ended the whole run",
    ]
    assert (root / "src/netwright/toy.py").read_text() == "x = 1"
