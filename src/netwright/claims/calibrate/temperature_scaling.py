"""What Guo et al. say of temperature scaling, measured here."""

from __future__ import annotations

from typing import Any

from netwright.calibrate.isotonic_calibration import IsotonicCalibration
from netwright.calibrate.matrix_scaling import MatrixScaling
from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.calibrate.vector_scaling import VectorScaling
from netwright.claims.beds.overconfident import OVERCONFIDENT, SETTING, bed_of, measure_arms, percents
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean, paired, told

BETTER = (
    Part("ece: temperature less uncalibrated", "below"),
    Part("nll: temperature less uncalibrated", "below"),
    Part("accuracy changed, seeds", "at most"),
)
CLAIM = Claim(
    slug="temperature-scaling",
    paper=(
        "one number is enough: ECE of a ResNet-110 on CIFAR-100 falls from 16.5 % to 1.3 %, lower than isotonic "
        "regression (5.0 %) and unregularised matrix scaling (25.5 %), level with vector scaling (1.3 %)"
    ),
    setting=SETTING,
    rule=Rule(
        holds=(
            *BETTER,
            Part("ece: temperature less isotonic", "at most"),
            Part("ece: temperature less matrix, unregularised", "at most"),
            Part("ece: temperature less vector", "at most", 0.005),
        ),
        mixed=(BETTER,),
        bed=OVERCONFIDENT,
    ),
)
ARMS = ("uncalibrated", "temperature", "vector", "matrix, unregularised", "isotonic")


def measure(scale: Scale) -> list[dict[str, Any]]:
    methods = {
        "temperature": TemperatureScaling(),
        "vector": VectorScaling(),
        "matrix, unregularised": MatrixScaling(strengths=(0.0,)),
        "isotonic": IsotonicCalibration(),
    }
    return measure_arms(scale, methods)


def judge(rows: list[dict[str, Any]]) -> Measured:
    others = [arm for arm in ARMS if arm != "temperature"]
    figures: dict[str, Any] = differences(rows, "temperature", others, ("ece", "nll", "accuracy"))
    figures["accuracy changed, seeds"] = sum(
        gap != 0 for gap in paired(rows, "temperature", "uncalibrated", "accuracy")
    )
    nll = ", ".join(f"{arm} {mean(rows, arm, 'nll'):.3f}" for arm in ARMS)
    return Measured(
        f"ECE on test: {percents(rows, ARMS, 'ece')}; NLL: {nll}; accuracy: {percents(rows, ARMS, 'accuracy')}.",
        figures,
        bed=bed_of(rows),
        notes=note(figures),
    )


def note(figures: dict[str, Any]) -> str:
    """What 'level with vector scaling' leaves out where it is said of the ECE alone."""
    nll, accuracy = (figures[f"{name}: temperature less vector"] for name in ("nll", "accuracy"))
    if nll["low"] <= 0:
        return ""
    return (
        "The verdict compares with the other calibrators by ECE, as the paper does. By NLL one number is not enough "
        f"here: temperature scaling is {told(nll, 1, 3)} from vector scaling, and "
        f"{100 * accuracy['mean']:+.1f} points in accuracy."
    )
