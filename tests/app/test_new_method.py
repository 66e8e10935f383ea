"""A method that is laid out works at once, in every goal, and two of them never meet in a file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import pytest

from netwright.app.new_method import CONTRACT, lay_out
from netwright.core import catalogue
from netwright.core.errors import BadInput, UnknownName

ROOT = Path(__file__).resolve().parents[2]
GOALS = [f"{goal}/newcomers" if goal == "domains" else goal for goal in CONTRACT]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a method touches or is tested by."""
    root = tmp_path / "checkout"
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", root / "src", ignore=leave)
    shutil.copytree(ROOT / "tests", root / "tests", ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def contents(root: Path) -> dict[Path, str]:
    return {p: sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}


def test_every_goal_has_a_layout() -> None:
    assert set(CONTRACT) == set(catalogue.GOALS)


def test_what_is_laid_out_in_each_goal_passes_the_suites_as_it_is(checkout: Path) -> None:
    slugs = [f"laid-out-{goal.partition('/')[0]}" for goal in GOALS]
    for slug, goal in zip(slugs, GOALS, strict=True):
        lay_out(slug, goal, checkout)
    suites = [f"tests/{name}" for name in ("conformance", "core/test_catalogue.py", "claims/test_rules.py")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "laid-out", "-rA", *suites]
    paths = os.pathsep.join([str(checkout / "src"), str(checkout)])
    told = subprocess.run(
        command, cwd=checkout, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr
    for slug in slugs:
        assert re.search(
            rf"^PASSED tests/conformance/test_conformance.py::.*\[{slug}", told.stdout, re.MULTILINE
        )


def test_two_methods_of_different_goals_touch_no_common_file(checkout: Path) -> None:
    touched: dict[str, set[Path]] = {}
    for goal in GOALS:
        before = contents(checkout)
        said = lay_out(f"alone-in-{goal.partition('/')[0]}", goal, checkout)
        after = contents(checkout)
        touched[goal] = {path for path, content in after.items() if before.get(path) != content}
        assert touched[goal] == set(said)
    for one, two in combinations(GOALS, 2):
        assert not touched[one] & touched[two]


def test_bad_words_are_refused_and_nothing_is_overwritten(checkout: Path) -> None:
    lay_out("my-idea", "inspect", checkout)
    with pytest.raises(BadInput, match="exists already"):
        lay_out("my-idea", "inspect", checkout)
    with pytest.raises(BadInput, match="kebab"):
        lay_out("My_Idea", "inspect", checkout)
    with pytest.raises(UnknownName, match="Did you mean 'inspect'"):
        lay_out("x", "inspec", checkout)
    with pytest.raises(BadInput, match="in the catalogue already"):
        lay_out("cka", "inspect", checkout)
    with pytest.raises(BadInput, match="no checkout"):
        lay_out("x", "inspect", checkout / "tests")
    for goal in ("domains", "inspect/x", "domains/a-b"):
        with pytest.raises(BadInput, match="--goal domains/wireless"):
            lay_out("x", goal, checkout)
