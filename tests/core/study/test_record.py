import math
import sqlite3

import pytest

from netwright.core.errors import BadInput
from netwright.core.study.record import Record
from netwright.core.study.trial import Ended, Trial

QUESTION = {"network": "abc", "task": "digits"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


def finish(record, trial, position=0, **figures):
    record.begin(trial, position)
    record.end(trial.key, Ended("done", figures=figures, seconds=1.5, memory=7), {"network.pt": "ab"})


def test_rows_come_back_in_the_order_of_the_study(path):
    record = Record(path, QUESTION)
    finish(record, Trial("b", {"ratio": 0.5}, seed=3), 1, accuracy=0.5, nll=math.inf)
    finish(record, Trial("a"), 0, accuracy=math.nan)
    record.close()
    first, second = Record(path, QUESTION).rows()
    assert (first["slug"], second["slug"]) == ("a", "b")
    assert math.isnan(first["accuracy"])
    assert second | {} == {
        "key": Trial("b", {"ratio": 0.5}, seed=3).key, "label": "b (ratio 0.5)", "slug": "b",
        "settings": {"ratio": 0.5}, "seed": 3, "status": "done", "reason": "", "seconds": 1.5, "memory": 7,
        "note": "", "traceback": "", "files": {"network.pt": "ab"}, "accuracy": 0.5, "nll": math.inf,
    }  # fmt: skip


def test_a_trial_cannot_stand_twice_nor_change_once_it_ended(path):
    record = Record(path, QUESTION)
    finish(record, Trial("a"), accuracy=0.5)
    with pytest.raises(BadInput):
        record.begin(Trial("a"), 1)
    record.end(Trial("a").key, Ended("failed"), {})
    assert [r["status"] for r in record.rows()] == ["done"]


def test_recover_forgets_only_what_was_running(path):
    record = Record(path, QUESTION)
    finish(record, Trial("a"))
    record.begin(Trial("b"), 1)
    record.recover()
    assert [r["slug"] for r in record.rows()] == ["a"]


def test_more_figures(path):
    record = Record(path, QUESTION)
    finish(record, Trial("a"), accuracy=0.5)
    record.add(Trial("a").key, {"latency": 2.0, "ratio": math.nan})
    (row,) = record.rows()
    assert row["accuracy"] == 0.5
    assert row["latency"] == 2.0
    assert math.isnan(row["ratio"])


def test_another_question_is_refused_and_says_which_part(path):
    Record(path, QUESTION).close()
    with pytest.raises(BadInput, match=r"study.db was made with another task; choose another --out"):
        Record(path, QUESTION | {"task": "mnist"})
    with pytest.raises(BadInput, match="another network and budget"):
        Record(path, {"network": "x", "task": "digits", "budget": "5"})
    assert Record(path).question == QUESTION


def test_no_study_there(path):
    with pytest.raises(BadInput, match="no such study"):
        Record(path)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"not a database at all" * 400, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_file_is_one_line_and_stays_as_it_is(path, content):
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"damaged|another program") as caught:
        Record(path, QUESTION)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_damage_in_the_middle_is_said_when_it_is_met(path):
    record = Record(path, QUESTION)
    for i in range(200):
        finish(record, Trial("a", {"i": i}), i, accuracy=0.5)
    record.close()
    content = bytearray(path.read_bytes())
    content[8192:-4096] = b"\xff" * (len(content) - 12288)
    path.write_bytes(content)
    with pytest.raises(BadInput, match="damaged"):
        Record(path, QUESTION).rows()


def test_a_database_of_another_program_is_left_alone(path):
    other = sqlite3.connect(path)
    other.execute("create table mine (x)")
    other.commit()
    before = path.read_bytes()
    with pytest.raises(BadInput, match="another program"):
        Record(path, QUESTION)
    assert path.read_bytes() == before


def test_nowhere_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        Record(tmp_path / "file" / "study.db", QUESTION)
    with pytest.raises(BadInput, match=r"cannot (write|be written)"):
        Record(tmp_path.joinpath("/proc/study.db"), QUESTION)


def test_disk_full_loses_nothing(path):
    record = Record(path, QUESTION)
    finish(record, Trial("a"), accuracy=0.5)
    pages = record._database.execute("pragma page_count").fetchone()[0]
    record._database.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(BadInput, match="disk full"):
        [finish(record, Trial("b", {"i": i}), i + 1) for i in range(1000)]
    record.close()
    rows = Record(path, QUESTION).rows()
    assert rows[0]["accuracy"] == 0.5
    assert len({r["key"] for r in rows}) == len(rows)


def test_lock_is_for_one_and_names_who_has_it(path):
    one, two = Record(path, QUESTION), Record(path, QUESTION)
    with one.lock(), pytest.raises(BadInput, match=r"is being run by process \d+ since"), two.lock():
        pass
    with two.lock():
        pass
