"""Verdicts and notes that depend on signs, on made-up rows."""

from __future__ import annotations

from typing import Any

import pytest

from netwright.claims.adapt import lst
from netwright.claims.calibrate import temperature_scaling, vector_scaling
from netwright.claims.train import rankmixup


def verdict_of(module: Any, measured: Any) -> str:
    return module.CLAIM.rule.verdict({**measured.bed, **measured.figures})


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
    measured = vector_scaling.judge(calibrated(nll))
    assert verdict_of(vector_scaling, measured) == verdict
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
    measured = temperature_scaling.judge(rows(arms))
    assert verdict_of(temperature_scaling, measured) == "holds"
    assert ("not enough" in measured.notes) == (vector == 0.4)


def ranked(ours: float, longer: float, accuracy: float = 0.8, short: float = 0.09) -> str:
    figures = lambda ece, accuracy=0.8: {
        "ece": ece, "accuracy": accuracy, "overconfidence": ece, "above_labels": 0.1,
    }  # fmt: skip
    arms = {name: figures(0.09) for name in ("cross entropy", "mixup", rankmixup.TOY)}
    arms[rankmixup.SHORT] = figures(short)
    arms |= {rankmixup.OURS: figures(ours, accuracy), rankmixup.LONGER: figures(longer)}
    return verdict_of(rankmixup, rankmixup.judge(rows(arms)))


def test_rankmixup_must_win_at_equal_passes_and_at_equal_epochs() -> None:
    assert ranked(0.02, 0.02) == "holds"
    assert ranked(0.02, 0.2) == ranked(0.2, 0.02) == "mixed"
    assert ranked(0.02, 0.2, accuracy=0.7) == ranked(0.2, 0.2) == "does not hold here"
    # what fewer epochs do by themselves is not the method's
    assert ranked(0.02, 0.2, short=0.01) == "does not hold here"


def adapted(head: float) -> Any:
    memory = {"ladder": 40.0, "LoRA": 90.0, "full": 150.0, "head only": 0.1}
    accuracy = {"ladder": 0.8, "LoRA": 0.75, "full": 0.85, "head only": head}
    bytes_of = lambda arm: {f"memory_mb, {shape}": memory[arm] for shape in lst.SHAPES}
    return lst.judge(rows({arm: {**bytes_of(arm), "accuracy": accuracy[arm]} for arm in memory}))


def test_a_task_that_the_head_alone_solves_cannot_show_what_a_ladder_is_worth() -> None:
    assert verdict_of(lst, adapted(0.7)) == "holds"
    assert verdict_of(lst, adapted(0.85)) == "cannot show here"
    assert "LoRA +5.0" in adapted(0.7).notes
