"""What Zadrozny and Elkan say of isotonic calibration, measured here."""

from __future__ import annotations

from netwright.calibrate.isotonic_calibration import IsotonicCalibration
from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.claims.calibrate.bed import SETTING, measure_arms
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean

CLAIM = Claim(
    slug="isotonic-calibration",
    paper=(
        "isotonic curves, one class against the rest and normalised, lower the squared error of multiclass "
        "probabilities (of naive Bayes, boosted and margin classifiers) without lowering the accuracy"
    ),
    setting=SETTING,
    holds_if=(
        "Brier score and ECE below the uncalibrated network's, both 95 % intervals below 0, and mean accuracy at "
        "most half a point lower"
    ),
)


def measure(scale: Scale) -> Measured:
    rows = measure_arms(scale, {"isotonic": IsotonicCalibration(), "temperature": TemperatureScaling()})
    figures = {
        f"{name}: isotonic less {other}": difference(rows, "isotonic", other, name)
        for other in ("uncalibrated", "temperature")
        for name in ("brier", "ece", "nll", "accuracy")
    }
    better = [figures[f"{k}: isotonic less uncalibrated"]["interval"][1] < 0 for k in ("brier", "ece")]
    kept = figures["accuracy: isotonic less uncalibrated"]["mean"] >= -0.005
    value = lambda arm, name: mean(rows, arm, name)
    return Measured(
        rows,
        "holds" if all(better) and kept else "mixed" if any(better) else "does not hold here",
        f"Brier score on test {value('isotonic', 'brier'):.3f} against {value('uncalibrated', 'brier'):.3f} before "
        f"and {value('temperature', 'brier'):.3f} after temperature scaling; ECE "
        f"{100 * value('isotonic', 'ece'):.1f}, {100 * value('uncalibrated', 'ece'):.1f} and "
        f"{100 * value('temperature', 'ece'):.1f} %.",
        figures,
    )
