import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from netwright.core.measure.paired import Change, bootstrapped, changes, judged, of_hits, r2_error
from netwright.core.metrics import score


def test_hits_against_bonett_and_price_by_hand():
    """b = 12 lost, c = 5 won of 100: p_b = 13/102, p_c = 6/102."""
    d = torch.tensor([-1.0] * 12 + [1.0] * 5 + [0.0] * 83)
    lost, won = 13 / 102, 6 / 102
    half = 1.959964 * math.sqrt((lost + won - (lost - won) ** 2) / 102)
    change = of_hits(d)
    assert change.value == pytest.approx(-0.07)
    assert (change.low, change.high) == pytest.approx((won - lost - half, won - lost + half))
    assert not change.sure
    assert change.examples == 100


def test_no_difference_at_all_still_has_a_width():
    change = of_hits(torch.zeros(300))
    assert change.value == 0
    assert change.low == -change.high
    assert 0.005 < change.high < 0.015, "about the 3/n of the rule of three"


@pytest.mark.parametrize(("n", "lost", "won"), [(30, 0.1, 0.02), (100, 0.02, 0.02), (400, 0.05, 0.01)])
def test_the_interval_covers_the_truth_as_often_as_it_says(n, lost, won):
    rng = np.random.default_rng(0)
    draws = rng.choice([-1.0, 1.0, 0.0], p=[lost, won, 1 - lost - won], size=(2000, n))
    intervals = [of_hits(torch.from_numpy(d)) for d in draws]
    covered = np.mean([c.low <= won - lost <= c.high for c in intervals])
    assert 0.93 <= covered <= 0.998  # on the safe side where few pairs differ


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60))
def test_the_value_lies_in_its_interval(differences):
    change = of_hits(torch.tensor(differences))
    assert -1 <= change.low <= change.value + 1e-9
    assert change.value <= change.high + 1e-9 <= 1 + 2e-9


def test_labels_of_an_example_count_as_parts_of_it():
    targets = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]])
    a, b = torch.where(targets > 0, 1.0, -1.0), torch.where(targets > 0, 1.0, -1.0)
    b[0, 0] = 1.0
    change = changes(judged(a, targets, "multilabel"), judged(b, targets, "multilabel"), 4)["accuracy"]
    assert change.value == pytest.approx(-1 / 8)
    expected = score(b, targets, "multilabel")["accuracy"] - score(a, targets, "multilabel")["accuracy"]
    assert change.value == pytest.approx(expected)


@pytest.mark.parametrize("outputs", [1, 3])
def test_regression_against_scikit_learn_and_a_plain_bootstrap(outputs):
    rng = np.random.default_rng(1)
    y = rng.normal(size=(150, outputs)) * 2 + 1
    a, b = y + rng.normal(size=y.shape), y + 1.2 * rng.normal(size=y.shape)
    # scikit-learn averages over outputs what we pool; with outputs of one spread they agree in one output only
    targets = torch.from_numpy(y if outputs > 1 else y[:, 0])
    found = changes(*(judged(torch.from_numpy(p), targets, "regression") for p in (a, b)))
    ours = [score(torch.from_numpy(p), targets, "regression") for p in (a, b)]
    assert found["r2"].value == pytest.approx(ours[1]["r2"] - ours[0]["r2"])
    assert found["mae"].value == pytest.approx(mean_absolute_error(y, b) - mean_absolute_error(y, a))
    if outputs > 1:
        return
    assert found["r2"].value == pytest.approx(r2_score(y, b) - r2_score(y, a))
    rmse = root_mean_squared_error(y, b) - root_mean_squared_error(y, a)
    assert found["rmse"].value == pytest.approx(rmse)
    picks = [rng.integers(0, 150, 150) for _ in range(2000)]
    for name, metric in (("r2", r2_score), ("mae", mean_absolute_error), ("rmse", root_mean_squared_error)):
        again = [metric(y[i], b[i]) - metric(y[i], a[i]) for i in picks]
        width = np.subtract(*np.quantile(again, [0.975, 0.025]))
        assert found[name].high - found[name].low == pytest.approx(width, rel=0.15), name
        assert found[name].low < found[name].value < found[name].high


def test_the_error_of_r2_is_that_of_a_bootstrap():
    rng = np.random.default_rng(2)
    y = rng.normal(size=400)
    guess = y + 0.5 * rng.standard_t(5, size=400)
    picks = [rng.integers(0, 400, 400) for _ in range(2000)]
    spread = np.std([r2_score(y[i], guess[i]) for i in picks])
    ours = r2_error(judged(torch.from_numpy(guess), torch.from_numpy(y), "regression"))
    assert ours == pytest.approx(spread, rel=0.1)


def test_equal_networks_in_a_regression_differ_by_exactly_nothing():
    part = np.abs(np.random.default_rng(0).normal(size=(50, 3)))
    assert bootstrapped(part, part)["r2"] == Change(0.0, 0.0, 0.0, 50)


def test_other_examples_are_refused():
    with pytest.raises(ValueError, match="not the same examples"):
        changes(torch.zeros(3, 1), torch.zeros(4, 1))
