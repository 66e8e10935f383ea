"""What Zadrozny and Elkan say of isotonic calibration, measured here."""

from __future__ import annotations

from typing import Any

from netwright.calibrate.isotonic_calibration import IsotonicCalibration
from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.claims.beds.overconfident import OVERCONFIDENT, SETTING, bed_of, measure_arms
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean

CLAIM = Claim(
    slug="isotonic-calibration",
    paper=(
        "isotonic curves, one class against the rest and normalised, lower the squared error of multiclass "
        "probabilities (of naive Bayes, boosted and margin classifiers) without lowering the accuracy"
    ),
    setting=SETTING,
    rule=Rule(
        holds=(
            Part("brier: isotonic less uncalibrated", "below"),
            Part("ece: isotonic less uncalibrated", "below"),
            Part("accuracy: isotonic less uncalibrated", "at least", -0.005),
        ),
        mixed=(
            (Part("brier: isotonic less uncalibrated", "below"),),
            (Part("ece: isotonic less uncalibrated", "below"),),
        ),
        bed=OVERCONFIDENT,
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    return measure_arms(scale, {"isotonic": IsotonicCalibration(), "temperature": TemperatureScaling()})


def judge(rows: list[dict[str, Any]]) -> Measured:
    value = lambda arm, name: mean(rows, arm, name)
    return Measured(
        f"Brier score on test {value('isotonic', 'brier'):.3f} against {value('uncalibrated', 'brier'):.3f} before "
        f"and {value('temperature', 'brier'):.3f} after temperature scaling; ECE "
        f"{100 * value('isotonic', 'ece'):.1f}, {100 * value('uncalibrated', 'ece'):.1f} and "
        f"{100 * value('temperature', 'ece'):.1f} %.",
        differences(rows, "isotonic", ("uncalibrated", "temperature"), ("brier", "ece", "nll", "accuracy")),
        bed=bed_of(rows),
    )
