"""Trials that misbehave in every way that we could think of: each is a row with its reason, the others go on."""

import os
import re
import time
from pathlib import Path

import cloudpickle
import pytest
from tests.core.study import study_functions

from netwright.core.study.processes import free_memory
from netwright.core.study.study import Limits, Study, Trial

cloudpickle.register_pickle_by_value(study_functions)

EXPECTED = {
    "raise": ("failed", "ValueError: first line"),
    "refuse": ("not applicable", "needs transformer blocks, this network has none"),
    "leave": ("failed", "SystemExit: 4"),
    "exit": ("failed", "its process ended itself with exit code 3"),
    "segfault": ("failed", "its process crashed (SIGSEGV)"),
    "hang": ("timed out", "not done after 2 s (the limit)"),
    "hang_in_c": ("timed out", "not done after 2 s (the limit)"),
    "allocate": ("out of memory", None),
    "eat": ("out of memory", "GB (limit 0.7 GB)"),
    "eat_in_child": ("out of memory", "GB (limit 0.7 GB)"),
    "words": ("failed", "ValueError: could not convert string to float: 'many'"),
    "lock": ("failed", "the network that came out cannot be sent"),
    "escape": ("failed", "'../../outside' is no name for a file"),
    "well": ("done", ""),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("failures") / "study.db", {"network": "abc"})


@pytest.fixture(scope="module")
def rows(study):
    hanging = [slug for slug in EXPECTED if "hang" in slug]
    others = [slug for slug in EXPECTED if "hang" not in slug]
    rows = []
    for slugs, seconds in ((hanging, 2), (others, 60)):
        limits = Limits(seconds=seconds, memory=700_000_000)
        trials = [Trial(slug) for slug in slugs]
        rows += study.run(trials, study_functions.misbehave, limits=limits, jobs=2)
    return {row["slug"]: row for row in rows}


@pytest.mark.parametrize("slug", EXPECTED)
def test_is_a_row_with_its_reason(rows, slug):
    status, reason = EXPECTED[slug]
    assert rows[slug]["status"] == status
    assert "\n" not in rows[slug]["reason"]
    assert (reason or "allocate") in rows[slug]["reason"] if status != "done" else rows[slug]["x"] == 1


def test_nothing_is_left_of_the_failed_ones(study, rows):
    assert [p for p in study.folder.rglob("*") if p.is_file()] == []
    assert not (study.path.parent.parent / "outside").exists()


def test_the_curious_find_where_it_happened(rows):
    assert re.search(r"line \d+, in do_raise\nValueError: first line", rows["raise"]["traceback"])
    assert "do_segfault" in rows["segfault"]["traceback"]


def test_memory_of_children_counts(rows):
    assert rows["eat_in_child"]["memory"] > 700_000_000


def test_children_of_a_trial_end_with_it(tmp_path):
    study = Study(tmp_path / "study.db", {})
    note = tmp_path / "child"
    (row,) = study.run(
        [Trial("child", {"child": str(note)})], study_functions.misbehave, limits=Limits(seconds=1)
    )
    assert row["status"] == "timed out"
    assert gone(int(note.read_text()))


def gone(pid: int, patience: float = 5.0) -> bool:
    """Whether the process ends within so many seconds (a zombie that waits for its parent has ended)."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_free_memory_is_what_the_machine_could_have():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_memory() <= total


def test_a_study_with_an_end_ends_what_hangs_and_starts_nothing_after_it(tmp_path):
    study = Study(tmp_path / "study.db", {})
    study.run([Trial("well")], study_functions.misbehave)  # the fork server is up
    start = time.monotonic()
    rows = study.run(
        [Trial("hang"), Trial("late", {"never": "started"})], study_functions.misbehave,
        limits=Limits(until=start + 3, spare=1, least=1.5),
    )  # fmt: skip
    assert time.monotonic() - start < 20
    assert [(row["slug"], row["status"]) for row in rows] == [("hang", "timed out")]
