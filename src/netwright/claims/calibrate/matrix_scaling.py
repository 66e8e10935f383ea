"""What Kull et al. say of matrix scaling with ODIR, measured here."""

from __future__ import annotations

from typing import Any

from netwright.calibrate.matrix_scaling import MatrixScaling
from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.calibrate.vector_scaling import VectorScaling
from netwright.claims.beds.overconfident import OVERCONFIDENT, SETTING, bed_of, measure_arms
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean

CLAIM = Claim(
    slug="matrix-scaling",
    paper=(
        "off-diagonal and intercept regularisation keeps matrix scaling from overfitting, where without it the ECE of "
        "a ResNet-110 on CIFAR-100 rises to 25.5 % (Guo et al.); its log-loss and class-wise ECE are then as good as "
        "or better than those of temperature and vector scaling"
    ),
    setting=SETTING,
    rule=Rule(
        holds=(
            Part("nll: matrix, ODIR less uncalibrated", "below"),
            Part("nll: matrix, ODIR less matrix, unregularised", "below"),
            Part("classwise_ece: matrix, ODIR less temperature", "at most"),
        ),
        mixed=((Part("nll: matrix, ODIR less uncalibrated", "below"),),),
        bed=OVERCONFIDENT,
    ),
)
OTHERS = ("uncalibrated", "matrix, unregularised", "vector", "temperature")


def measure(scale: Scale) -> list[dict[str, Any]]:
    arms = {
        "matrix, ODIR": MatrixScaling(),
        "matrix, unregularised": MatrixScaling(strengths=(0.0,)),
        "vector": VectorScaling(),
        "temperature": TemperatureScaling(),
    }
    return measure_arms(scale, arms)


def judge(rows: list[dict[str, Any]]) -> Measured:
    listed = ", ".join(f"{arm} {mean(rows, arm, 'nll'):.3f}" for arm in ("matrix, ODIR", *OTHERS))
    return Measured(
        f"NLL on test: {listed}; class-wise ECE {100 * mean(rows, 'matrix, ODIR', 'classwise_ece'):.2f} % against "
        f"{100 * mean(rows, 'temperature', 'classwise_ece'):.2f} % after temperature scaling.",
        differences(rows, "matrix, ODIR", OTHERS, ("nll", "classwise_ece", "ece", "accuracy")),
        bed=bed_of(rows),
    )
