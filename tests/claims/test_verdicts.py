"""Verdicts and notes that depend on signs, on made-up rows."""

from __future__ import annotations

from typing import Any

import pytest

from netwright.claims.adapt import lst
from netwright.claims.calibrate import temperature_scaling, vector_scaling
from netwright.claims.train import rankmixup


def rows(
    arms: dict[str, dict[str, float]], noise: tuple[float, ...] = (0.001, 0.0, -0.001)
) -> list[dict[str, Any]]:
    """Three seeds of each arm; noise is added to the figures of every other arm, so that pairs differ."""
    return [
        {"arm": arm, "seed": seed, **{name: value + extra * (i % 2) for name, value in figures.items()}}
        for i, (arm, figures) in enumerate(arms.items())
        for seed, extra in enumerate(noise)
    ]


def calibrated(nll: float) -> list[dict[str, Any]]:
    figures = lambda nll, ece, accuracy=0.8: {
        "nll": nll,
        "ece": ece,
        "accuracy": accuracy,
        "classwise_ece": ece,
    }
    return rows(
        {
            "uncalibrated": figures(0.60, 0.05), "vector": figures(nll, 0.01, 0.84),
            "offsets": figures(0.42, 0.01, 0.84), "temperature": figures(0.50, 0.01),
        }
    )  # fmt: skip


@pytest.mark.parametrize(("nll", "verdict"), [(0.4, "mixed"), (0.5, "holds"), (0.55, "mixed")])
def test_vector_scaling_that_is_better_or_worse_is_not_no_better(nll: float, verdict: str) -> None:
    measured = vector_scaling.verdict(calibrated(nll))
    assert measured.verdict == verdict
    assert "NLL" in measured.summary
    assert "accuracy" in measured.summary
    assert ("80 %" in measured.notes) == (nll == 0.4)  # (0.50 - 0.42) / (0.50 - 0.40)
    assert bool(measured.notes) == (nll == 0.4)


@pytest.mark.parametrize("vector", [0.4, 0.6])
def test_the_note_of_temperature_scaling_says_when_one_number_is_not_enough(vector: float) -> None:
    figures = lambda nll, ece, accuracy: {"nll": nll, "ece": ece, "accuracy": accuracy}
    arms = {
        "uncalibrated": figures(0.60, 0.05, 0.8), "vector": figures(vector, 0.011, 0.84),
        "temperature": figures(0.50, 0.01, 0.8), "isotonic": figures(0.5, 0.02, 0.8),
        "matrix, unregularised": figures(0.5, 0.02, 0.8),
    }  # fmt: skip
    measured = temperature_scaling.verdict(rows(arms))
    assert measured.verdict == "holds"
    assert ("not enough" in measured.notes) == (vector == 0.4)


def ranked(ours: float, longer: float, accuracy: float = 0.8) -> Any:
    figures = lambda ece, accuracy=0.8: {"ece": ece, "accuracy": accuracy, "overconfidence": ece}
    arms = {name: figures(0.09) for name in ("cross entropy", "focal", "mixup", "label smoothing")}
    arms["cross entropy + temperature"] = figures(0.01)
    arms |= {rankmixup.OURS: figures(ours, accuracy), rankmixup.LONGER: figures(longer)}
    return rankmixup.verdict(rows(arms))


def test_rankmixup_is_judged_at_equal_passes_first() -> None:
    assert ranked(0.02, 0.2).verdict == "holds"
    assert ranked(0.02, 0.2, accuracy=0.7).verdict == "mixed"
    assert ranked(0.2, 0.02).verdict == "mixed"
    assert ranked(0.2, 0.2).verdict == "does not hold here"
    note = ranked(0.02, 0.2).notes
    assert "a quarter of the epochs lower (-7" in note
    assert "equal epochs higher (+11" in note
    assert "+9.0 points" in note


def test_the_ladder_s_note_follows_the_signs() -> None:
    gap = lambda mean: {"mean": mean, "interval": [mean - 0.01, mean + 0.01]}
    ahead = lst.note({"LoRA": gap(0.05), "full": gap(-0.05), "head only": gap(0.05)})
    assert "above LoRA (+5.0" in ahead
    assert "below full (-5.0" in ahead
    assert "does not show" not in ahead
    assert "does not show" in lst.note({"LoRA": gap(0.05), "full": gap(0.0), "head only": gap(0.005)})
