import math

import pytest

from netwright.core.budget import (
    Budget,
    check_time,
    in_time,
    parse_fraction,
    parse_seconds,
    time_left,
    within,
)
from netwright.core.errors import BadInput, NotApplicable


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("2.5m", 150), ("45", 45)]
)
def test_lengths_of_time(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5 minutes", "m5", "-3s", "0s", "1d", "5m3"])
def test_no_length_of_time(text):
    with pytest.raises(BadInput, match="90s"):
        parse_seconds(text)


@pytest.mark.parametrize(("text", "value"), [("0.01", 0.01), ("1%", 0.01), ("0.5%", 0.005), ("0", 0.0)])
def test_fractions(text, value):
    assert parse_fraction(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1.5", "-1%", "200%", "one", ""])
def test_no_fraction(text):
    with pytest.raises(BadInput, match="1%"):
        parse_fraction(text)


def test_minutes_are_seconds():
    assert Budget(minutes=2) == Budget(seconds=120)


def test_a_meter_ends_with_whichever_limit_is_reached_first():
    meter = Budget(seconds=1000, epochs=2, samples=150).start()
    meter.spend(samples=100, epochs=1)
    assert not meter.exhausted
    assert meter.left().samples == 50
    assert meter.left().epochs == 1
    meter.spend(samples=50)
    assert meter.exhausted


def test_part_scales_every_limit():
    part = Budget(seconds=10, epochs=4, samples=100).part(0.5)
    assert (part.seconds, part.epochs, part.samples) == (5, 2, 50)


def test_negative_budget_is_refused():
    with pytest.raises(BadInput, match="epochs"):
        Budget(epochs=-1)


def test_the_time_set_around_counts_for_what_takes_no_budget():
    assert time_left() == math.inf
    with within(100), within(None), within(200):
        assert 90 < time_left() <= 100
        assert 90 < Budget(epochs=3).start().left().seconds <= 100
        assert Budget(seconds=5).start().seconds == 5
        check_time("this")
        assert list(in_time(range(3))) == [0, 1, 2]
    with within(0):
        assert Budget(epochs=3).start().exhausted
        assert list(in_time(range(3))) == [0], "the first one at least"
        with pytest.raises(NotApplicable, match="tracing it needs more time"):
            check_time("tracing it")
    assert time_left() == math.inf
