"""What Guo et al. say of vector scaling, measured here."""

from __future__ import annotations

from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.calibrate.vector_scaling import VectorScaling
from netwright.claims.calibrate.bed import SETTING, measure_arms
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean

CLAIM = Claim(
    slug="vector-scaling",
    paper=(
        "as good as temperature scaling and no better: ECE of a ResNet-110 on CIFAR-100 from 16.5 % to 1.3 %, the "
        "fitted factors nearly equal"
    ),
    setting=SETTING,
    holds_if=(
        "ECE and NLL below the uncalibrated network's, both 95 % intervals below 0, and mean ECE within half a point "
        "of that of temperature scaling"
    ),
)


def measure(scale: Scale) -> Measured:
    rows = measure_arms(scale, {"vector": VectorScaling(), "temperature": TemperatureScaling()})
    figures = {
        f"{name}: vector less {other}": difference(rows, "vector", other, name)
        for other in ("uncalibrated", "temperature")
        for name in ("ece", "nll", "accuracy")
    }
    better = all(figures[f"{k}: vector less uncalibrated"]["interval"][1] < 0 for k in ("ece", "nll"))
    level = abs(figures["ece: vector less temperature"]["mean"]) <= 0.005
    ece = {arm: 100 * mean(rows, arm, "ece") for arm in ("uncalibrated", "vector", "temperature")}
    return Measured(
        rows,
        "holds" if better and level else "mixed" if better else "does not hold here",
        f"ECE on test {ece['vector']:.1f} % after vector scaling, {ece['temperature']:.1f} % after temperature "
        f"scaling, {ece['uncalibrated']:.1f} % before.",
        figures,
    )
