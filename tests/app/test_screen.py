import math

import pytest

from netwright.app.screen import View, time_left
from netwright.core.progress import Progress


def ended(view: View) -> None:
    view.trial("original", {"status": "done", "seconds": 1.0})
    with view.trials(2):
        view.trial("taylor", Progress(1, 2, "epoch 1"))
        view.trial("taylor", {"status": "done", "seconds": 12.3})
        view.trial("int8", {"status": "failed", "seconds": 0.2})
    view.trial("later", {"status": "done", "seconds": 1.0})


def test_without_a_terminal_each_trial_is_a_line(capsys):
    ended(View())
    assert capsys.readouterr().out == "  1 of 2: taylor: done, 12 s\n  2 of 2: int8: failed, 0 s\n"


def test_quiet_is_quiet(capsys):
    view = View(quiet=True)
    ended(view)
    with view.working("training"):
        view.say("something")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(65, "at most 1:05 left"), (0.2, "at most 0:01 left"), (-3, "at most 0:00 left"), (math.inf, "")],
)
def test_the_time_left_is_said(seconds, said):
    assert time_left(seconds) == said
