"""The values that a claim tunes over: a best one inside them, or said to be at their edge."""

import math

import pytest

from netwright.claims.domains.lightgcn import WIDEST, widened


@pytest.mark.parametrize(("peak", "tried"), [(1e-3, 3), (1e-5, 5), (1.0, 6)])
def test_more_values_are_tried_until_the_best_has_two_neighbours(peak: float, tried: int) -> None:
    asked = []
    score = lambda v: asked.append(v) or -abs(math.log10(v) - math.log10(peak))
    best, edge = widened(score, (1e-4, 1e-3, 1e-2))
    assert best == pytest.approx(peak)
    assert not edge
    assert len(asked) == tried


def test_a_plateau_is_no_edge_and_an_endless_rise_is_one() -> None:
    assert widened(lambda v: 0.3 - 1e-5 * v, (1, 10, 100)) == (1, False)
    best, edge = widened(lambda v: math.log(v), (20, 100, 400))
    assert edge
    assert best == 400 * 4 ** (WIDEST - 3)
    assert isinstance(best, int)
