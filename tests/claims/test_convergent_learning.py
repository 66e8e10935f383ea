"""What the claim about convergent learning makes of correlations: on made-up units whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from netwright.claims.inspect import convergent_learning as claim
from netwright.claims.record import Scale
from netwright.core.errors import BadInput


def detail(one: np.ndarray, two: np.ndarray) -> dict:
    """As the Analysis hands it over, from activations (n, A) and (n, B)."""
    joint = np.corrcoef(np.concatenate([one, two], 1), rowvar=False)
    a = one.shape[1]
    within, second, between = joint[:a, :a], joint[a:, a:], joint[:a, a:]
    return {
        "correlation": between.tolist(), "within_first": within.tolist(), "within_second": second.tolist(),
        "strength": claim.matching(between).tolist(),
        "blocks": claim.block_overlap(within, second, between, claim.blocks(between, 2, 0)),
    }  # fmt: skip


def test_the_common_component_is_taken_out_as_by_regressing_every_unit_on_it() -> None:
    draw = np.random.default_rng(0)
    light = draw.normal(size=(4000, 1))
    one, two = (light * draw.uniform(1, 2, 5) + draw.normal(size=(4000, 5)) for _ in range(2))
    units = np.concatenate([one, two], 1)
    units = (units - units.mean(0)) / units.std(0)
    common = units @ np.linalg.svd(units, full_matrices=False)[2][0]
    left = units - np.outer(common, common @ units) / (common @ common)
    expected = np.corrcoef(left, rowvar=False)
    first, second, between = claim.without_the_common(detail(one, two))
    assert np.allclose(np.block([[first, between], [between.T, second]]), expected, atol=1e-8)


def networks(shared: int, count: int = 3, units: int = 8) -> list[np.ndarray]:
    """Networks of which the first `shared` units are the same features, in another order, the rest their own."""
    draw = np.random.default_rng(1)
    features = draw.normal(size=(3000, shared))
    found = []
    for _ in range(count):
        own = draw.normal(size=(3000, units - shared))
        noisy = features + 0.3 * draw.normal(size=features.shape)
        found.append(np.concatenate([noisy, own], 1)[:, draw.permutation(units)])
    return found


def found_of(members: list[np.ndarray]) -> dict:
    return {
        f"{layer}: {i} and {j}": detail(members[i], members[j])
        for layer in claim.LAYERS
        for i in range(len(members))
        for j in range(i + 1, len(members))
    }


def test_units_that_recur_are_told_from_those_that_do_not() -> None:
    some = found_of(networks(shared=4))
    for row in claim.recurrence("trained", some, 3):
        assert row["recurs"] > 0.6  # the shared four are matched well in both others, in whatever order
    for row in claim.recurrence("trained", found_of(networks(shared=0, units=60)), 3):
        assert abs(row["recurs"]) < 0.4
    rows = [row for row in claim.pairs("trained", some, 3) if row["arm"] == "trained"]
    assert len(rows) == 3
    for row in rows:
        assert row["often"] == row["seldom"] == pytest.approx(0.5)
        # noise of 0.3 leaves 1 / 1.09 of a shared feature; what is a network's own is matched by chance alone
        assert row["matched"] == pytest.approx(0.5 / 1.09, abs=0.03)
    random = [row for row in claim.pairs("trained", some, 3) if row["arm"] == "trained: random blocks"]
    assert all(row["subspaces"] < own["subspaces"] for row, own in zip(random, rows, strict=True))


def test_two_networks_cannot_say_what_recurs() -> None:
    with pytest.raises(BadInput, match="three seeds"):
        claim.measure(Scale(seeds=(0, 1)))
