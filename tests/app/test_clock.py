import signal
import time

import pytest

from netwright.app.clock import Clock, TimeUp, cut_off
from netwright.core.budget import time_left
from netwright.core.errors import BadInput


def stubborn(seconds):
    """Work that takes every Exception for a failure of its own and goes on."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except Exception:
            continue


def test_what_never_asks_is_cut_off():
    start = time.monotonic()
    with pytest.raises(TimeUp), cut_off(start + 0.2):
        stubborn(30)
    assert time.monotonic() - start < 10


def test_the_earliest_moment_counts_and_the_outer_one_still_stands_afterwards():
    start = time.monotonic()

    def nested():
        with pytest.raises(TimeUp), cut_off(start + 0.2):
            stubborn(30)
        with cut_off(start + 60):
            stubborn(30)

    with pytest.raises(TimeUp), cut_off(start + 0.6):
        nested()
    assert time.monotonic() - start < 10
    stubborn(0.1)  # nothing rings any more


def test_a_timer_that_rings_late_cuts_nothing_off_any_more():
    """A signal that was pending when its block ended must not hit what comes next."""
    with cut_off(time.monotonic() + 60):
        late = signal.getsignal(signal.SIGALRM)
    late(signal.SIGALRM, None)
    with cut_off(time.monotonic() + 60):
        late(signal.SIGALRM, None)
        with pytest.raises(TimeUp):
            signal.getsignal(signal.SIGALRM)(signal.SIGALRM, None)


def test_a_command_that_has_no_answer_in_time_says_so():
    clock = Clock(2.0, began=time.monotonic() - 1000)
    with pytest.raises(BadInput, match="a budget of 2 s is too small here"), clock.command():
        stubborn(30)
    assert clock.left == clock.at_most == 0
    with Clock(100).opening():
        assert 25 < time_left() <= 30


def test_the_opening_tells_how_slow_the_machine_is():
    clock = Clock(100)
    closing = clock.closing
    with clock.opening():
        used, start = time.process_time(), time.monotonic()
        while time.process_time() - used < 0.3:
            pass
        time.sleep(4 * (time.monotonic() - start))  # as if others had the processor
    assert clock.slowness > 4
    assert closing < clock.closing < 60


def test_without_a_budget_nothing_ends():
    clock = Clock(None)
    with clock.command(), clock.opening():
        assert clock.left == time_left() == float("inf")
