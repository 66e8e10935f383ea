import subprocess
import sys
import time

import pytest

from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.study.trial import Limits, Trial

BASE = Trial("taylor", {"ratio": 0.5, "layers": [1, 2]}, seed=1, budget=Budget(epochs=2))


def test_key_is_the_same_in_another_process_and_for_another_order_of_settings():
    code = (
        "from netwright.core.study.trial import Trial; from netwright.core.budget import Budget;"
        "print(Trial('taylor', {'layers': (1, 2), 'ratio': 0.5}, 1, Budget(epochs=2), 'named').key)"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == BASE.key


@pytest.mark.parametrize(
    "other",
    [
        Trial("random", BASE.settings, 1, BASE.budget),
        Trial("taylor", {"ratio": 0.6, "layers": [1, 2]}, 1, BASE.budget),
        Trial("taylor", BASE.settings, 2, BASE.budget),
        Trial("taylor", BASE.settings, 1, Budget(epochs=3)),
    ],
)
def test_key_tells_trials_apart(other):
    assert other.key != BASE.key


def test_settings_that_cannot_be_written_down_are_refused_at_once():
    with pytest.raises(BadInput, match=r"settings of trial 'x .*JSON"):
        Trial("x", {"f": object()})


def test_label_names_the_settings():
    assert Trial("taylor", {"ratio": 0.5}).label == "taylor (ratio 0.5)"
    assert Trial("taylor").label == "taylor"


def test_trials_share_what_is_left_and_one_without_a_share_is_not_started():
    now = time.monotonic()
    limits = Limits(until=now + 100, spare=5, least=1)
    trial = Trial("a", budget=Budget(seconds=30))
    assert limits.paced(trial, 5, 1).allowed == pytest.approx(15, abs=1), (
        "a fifth, less what follows the method"
    )
    assert limits.paced(trial, 5, 1).key == trial.key
    assert limits.paced(trial, 1, 1).allowed == 30, "no more than its own budget"
    assert limits.paced(trial, 1, 1).limit <= 100
    first, alone = (limits.paced(Trial("a"), waiting, 1) for waiting in (2, 1))
    assert first.limit > first.allowed + 4 * 5, "it may be late, at the cost of the next one"
    assert alone.limit == pytest.approx(100, abs=1), "nobody bears the last one's delay"
    graced = Limits(until=now + 100, last=now + 200, spare=5).paced(Trial("a"), 1, 1)
    assert graced.allowed == pytest.approx(alone.allowed, abs=1)
    assert graced.limit > graced.allowed + 4 * 5
    assert Limits(until=now + 100, last=now + 101, spare=5).paced(Trial("a"), 1, 1).limit < 102
    assert limits.paced(trial, 10, 5).allowed == pytest.approx(30), "five at a time"
    assert Limits(until=now + 4, spare=5).paced(trial, 2, 1) is None
    assert Limits(seconds=3).paced(trial, 2, 1) == trial
