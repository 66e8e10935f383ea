import math

import pytest
import torch

import netwright as nw
from netwright.app.candidates.beside import blow_up, blown_up, change_cell, change_of, hold_beside, note_of
from netwright.app.candidates.run import JUDGED, _npy, original_trial, told_apart
from netwright.core.budget import Budget
from netwright.core.study.study import Outcome, Study, Trial

HITS = {
    "original": [1, 1, 1, 1, 1, 0, 0, 0],
    "better": [1, 1, 1, 1, 1, 1, 0, 0],
    "worse": [0, 1, 1, 1, 1, 0, 0, 0],
}
NLL = {"original": 0.26, "better": 0.3, "worse": 54.0}


def outcome(trial, network, task):
    hits = torch.tensor(HITS[trial.slug], dtype=torch.float64)
    figures = {"accuracy": hits.mean().item(), "nll": NLL[trial.slug]}
    return Outcome(figures, files={JUDGED: _npy(hits[:, None])})


@pytest.fixture(scope="module")
def task():
    return nw.Task.from_arrays(torch.randn(60, 3), torch.arange(60) % 3)


def test_rows_are_held_beside_the_original_on_the_same_examples(task, tmp_path):
    study = Study(tmp_path / "study.db", {})
    study.run([original_trial(), Trial("better"), Trial("worse")], outcome, None, task)
    hold_beside(study, task)
    original, better, worse = study.rows
    assert "accuracy_change" not in original
    assert (better["accuracy_change"], worse["accuracy_change"]) == (0.125, -0.125)
    change = change_of(better, "accuracy", 8)
    assert change.low < 0 < change.high, "one of eight examples proves nothing"
    assert change_cell(better, "accuracy").startswith("+12.5 [-")
    assert "blown_up" not in better
    assert note_of(worse, original) == (
        "its probabilities have blown up: negative log likelihood 54, of the original 0.26"
    )
    assert note_of(better, original) == ""
    before = study.rows
    hold_beside(study, task)
    assert study.rows == before


@pytest.mark.parametrize(
    ("nll", "original", "expected"),
    [
        (54, 0.26, True),
        (3.4, 0.26, True),
        (1.5, 0.01, False),
        (20, 15, False),
        (math.inf, 1, True),
        (None, 1, False),
    ],
)
def test_a_blow_up_is_far_beyond_a_guess_and_the_original(task, nll, original, expected):
    """ln 3 is 1.10: a uniform guess over the task's three classes."""
    assert blown_up(nll, original, task) is expected
    assert blow_up({"nll": 1.0}, {"nll": 1.0}) == ""


def test_labels_that_differ_by_seed_and_time_only_show_it():
    first = [Trial("taylor-pruning", {"ratio": 0.6}, 0, Budget(seconds=20), "taylor pruning 60 %")]
    second = [
        Trial("taylor-pruning", {"ratio": 0.6}, 1, Budget(seconds=40), "taylor pruning 60 %"),
        Trial("taylor-pruning", {"ratio": 0.7}, 1, Budget(seconds=40), "taylor pruning 70 %"),
    ]
    told = told_apart(second, first)
    assert [t.label for t in told] == ["taylor pruning 60 %, seed 1, 40 s", "taylor pruning 70 %"]
    assert [t.key for t in told] == [t.key for t in second]
