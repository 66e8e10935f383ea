import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwright.app import words
from netwright.app.report import report
from netwright.core.budget import Target
from netwright.core.plural import number_of


def test_what_was_asked_in_the_metrics_own_words():
    target = Target(faster=2, smaller=3.5, max_drop=0.01)
    assert report.asked(target) == "2 times faster, 3.5 times smaller, at most 1 point less accurate"
    assert report.asked(Target(max_drop=0.005)) == "at most 0.5 points less accurate"
    assert report.asked(Target(max_drop=0.01), "r2") == "at most 0.01 of R2 lost"


@given(st.floats(0.5, 20), st.floats(1.001, 10))
def test_a_printed_factor_never_contradicts_the_verdict(value, asked):
    printed = float(words.factor(value, asked).removesuffix("x"))
    assert (printed >= asked) == (value >= asked) or abs(value - asked) < 1e-8


@given(st.floats(-0.2, 0.2), st.floats(0, 0.1))
def test_a_printed_drop_never_contradicts_the_verdict(difference, most):
    printed = -float(words.moved("accuracy", difference, most).split()[0]) / 100
    assert (printed <= most + 1e-9) == (-difference <= most + 1e-9) or abs(difference + most) < 1e-8


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (number_of(1, "output"), "1 output"),
        (number_of(2, "class"), "2 classes"),
        (number_of(1797, "example"), "1,797 examples"),
        (words.moved("accuracy", 0.01), "+1.0 point"),
        (words.moved("accuracy", -0.0001), "0.0 points"),
        (words.moved("r2", -0.01), "-0.0100 of R2"),
        (words.size_change(100, 100), "as large"),
        (words.size_change(100, 110), "1.10x larger"),
        (words.listed(["a"]), "a"),
        (words.listed(["a", "b", "c"]), "a, b and c"),
        (words.figure("rmse", 12.34567), "12.35"),
    ],
)
def test_small_words(said, expected):
    assert said == expected
