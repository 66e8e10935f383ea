"""The statistics of the claims, against SciPy and against what an interval promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from netwright.claims.statistics import difference, differences, estimate, mean, t_interval, told
from netwright.core.errors import BadInput


def test_the_interval_of_a_difference_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=5), rng.normal(size=5)
    rows = [{"arm": arm, "seed": s, "gain": v} for arm, x in (("a", a), ("b", b)) for s, v in enumerate(x)]
    found = difference(rows, "a", "b", "gain")
    reference = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert found["mean"] == pytest.approx((a - b).mean())
    assert found["interval"] == "paired t, 95 %"
    assert found["seeds"] == 5
    with pytest.raises(KeyError, match="'c'"):
        difference(rows, "a", "c", "gain")
    with pytest.raises(KeyError, match="loss"):
        mean(rows, "a", "loss")
    assert differences(rows, "a", ("b",), ("gain",)) == {"gain: a less b": found}


def test_three_seeds_hold_the_mean_as_often_as_they_promise() -> None:
    rng = np.random.default_rng(1)
    hit = [low <= 0 <= high for low, high in (t_interval(rng.normal(size=3)) for _ in range(2000))]
    assert np.mean(hit) == pytest.approx(0.95, abs=0.015)


def test_one_seed_has_no_interval_and_equal_seeds_a_narrow_one() -> None:
    with pytest.raises(BadInput, match="two seeds"):
        t_interval([1.0])
    assert estimate([0.5, 0.5, 0.5])["low"] == estimate([0.5, 0.5, 0.5])["high"] == 0.5
    assert told({"mean": 0.01, "low": -0.002, "high": 0.022}) == "+1.00 [-0.20, +2.20]"
