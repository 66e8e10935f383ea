"""What Kull et al. say of matrix scaling with ODIR, measured here."""

from __future__ import annotations

from netwright.calibrate.matrix_scaling import MatrixScaling
from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.calibrate.vector_scaling import VectorScaling
from netwright.claims.calibrate.bed import SETTING, measure_arms
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean

CLAIM = Claim(
    slug="matrix-scaling",
    paper=(
        "off-diagonal and intercept regularisation keeps matrix scaling from overfitting, where without it the ECE of "
        "a ResNet-110 on CIFAR-100 rises to 25.5 % (Guo et al.); its log-loss and class-wise ECE are then as good as "
        "or better than those of temperature and vector scaling"
    ),
    setting=SETTING,
    holds_if=(
        "NLL below the uncalibrated network's and below that of matrix scaling without regularisation, both 95 % "
        "intervals below 0, and mean class-wise ECE at most that of temperature scaling; mixed if only the first "
        "of the two NLL intervals lies below 0"
    ),
)


def measure(scale: Scale) -> Measured:
    arms = {
        "matrix, ODIR": MatrixScaling(),
        "matrix, unregularised": MatrixScaling(strengths=(0.0,)),
        "vector": VectorScaling(),
        "temperature": TemperatureScaling(),
    }
    rows = measure_arms(scale, arms)
    figures = {
        f"{name}: ODIR less {other}": difference(rows, "matrix, ODIR", other, name)
        for other in ("uncalibrated", "matrix, unregularised", "vector", "temperature")
        for name in ("nll", "classwise_ece", "ece", "accuracy")
    }
    below = [
        figures[f"nll: ODIR less {other}"]["interval"][1] < 0
        for other in ("uncalibrated", "matrix, unregularised")
    ]
    classwise = figures["classwise_ece: ODIR less temperature"]["mean"] <= 0
    nll = {arm: mean(rows, arm, "nll") for arm in ("uncalibrated", *arms)}
    listed = ", ".join(f"{arm} {value:.3f}" for arm, value in nll.items())
    return Measured(
        rows,
        "holds" if all(below) and classwise else "mixed" if below[0] else "does not hold here",
        f"NLL on test: {listed}; class-wise ECE {100 * mean(rows, 'matrix, ODIR', 'classwise_ece'):.2f} % against "
        f"{100 * mean(rows, 'temperature', 'classwise_ece'):.2f} % after temperature scaling.",
        figures,
    )
