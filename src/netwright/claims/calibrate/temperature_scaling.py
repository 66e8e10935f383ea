"""What Guo et al. say of temperature scaling, measured here."""

from __future__ import annotations

from netwright.calibrate.isotonic_calibration import IsotonicCalibration
from netwright.calibrate.matrix_scaling import MatrixScaling
from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.calibrate.vector_scaling import VectorScaling
from netwright.claims.calibrate.bed import SETTING, measure_arms
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean

CLAIM = Claim(
    slug="temperature-scaling",
    paper=(
        "one number is enough: ECE of a ResNet-110 on CIFAR-100 falls from 16.5 % to 1.3 %, lower than isotonic "
        "regression (5.0 %) and unregularised matrix scaling (25.5 %), level with vector scaling (1.3 %)"
    ),
    setting=SETTING,
    holds_if=(
        "ECE and NLL below the uncalibrated network's, both 95 % intervals below 0, with the same predictions, and "
        "mean ECE below that of isotonic and of unregularised matrix scaling and at most half a point above that "
        "of vector scaling; mixed if only the first part holds"
    ),
)


def measure(scale: Scale) -> Measured:
    arms = {
        "temperature": TemperatureScaling(),
        "vector": VectorScaling(),
        "matrix, unregularised": MatrixScaling(strengths=(0.0,)),
        "isotonic": IsotonicCalibration(),
    }
    rows = measure_arms(scale, arms)
    figures = {
        name: difference(rows, "temperature", "uncalibrated", name) for name in ("ece", "nll", "accuracy")
    }
    ece = {arm: mean(rows, arm, "ece") for arm in ("uncalibrated", *arms)}
    better = figures["ece"]["interval"][1] < 0 and figures["nll"]["interval"][1] < 0
    better = better and figures["accuracy"]["mean"] == 0
    best = (
        ece["temperature"] < min(ece["isotonic"], ece["matrix, unregularised"])
        and ece["temperature"] <= ece["vector"] + 0.005
    )
    listed = ", ".join(f"{arm} {100 * value:.1f} %" for arm, value in ece.items())
    return Measured(
        rows,
        "holds" if better and best else "mixed" if better else "does not hold here",
        f"ECE on test: {listed}; no prediction changed by the temperature.",
        {f"{k}: temperature less uncalibrated": v for k, v in figures.items()},
    )
