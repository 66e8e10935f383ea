"""What Selvaraju et al. say of Grad-CAM, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.maps import (
    FULL,
    RECOGNISED,
    SETTING,
    bed_of,
    centre,
    gradient,
    measure_arms,
    smooth_gradient,
)
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import arms_of, differences, mean
from netwright.explain.grad_cam import GradCam

BASELINES = ("pixel gradient", "SmoothGrad", "bump in the middle")
CLAIM = Claim(
    slug="grad-cam",
    paper="locates objects better than the gradient of the pixels: top-1 error 56.5 against 61.1 % (VGG-16, ILSVRC-15)",
    setting=SETTING,
    full=FULL,
    rule=Rule(
        holds=tuple(
            Part(f"{name}: Grad-CAM less {other}", "above")
            for other in BASELINES
            for name in ("iou_several", "energy")
        ),
        bed=RECOGNISED,
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    arms = {
        "Grad-CAM": lambda n, x, t: GradCam(steps=0)(n, x, t).attribution,
        "pixel gradient": gradient,
        "SmoothGrad": smooth_gradient,
        "bump in the middle": centre,
    }
    return measure_arms(scale, arms)


def judge(rows: list[dict[str, Any]]) -> Measured:
    listed = ", ".join(
        f"{arm} {mean(rows, arm, 'iou_several'):.2f} and {100 * mean(rows, arm, 'energy'):.0f} %"
        for arm in arms_of(rows)
    )
    return Measured(
        f"IoU on several objects and energy inside the boxes: {listed}.",
        differences(rows, "Grad-CAM", BASELINES, ("iou_several", "energy", "pointing")),
        bed=bed_of(rows),
    )
