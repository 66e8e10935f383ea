"""What Chattopadhyay et al. say of Grad-CAM++, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.maps import FULL, RECOGNISED, SETTING, bed_of, measure_arms
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean, told
from netwright.explain.grad_cam import GradCam
from netwright.explain.grad_cam_plus_plus import GradCamPlusPlus

CLAIM = Claim(
    slug="grad-cam-plus-plus",
    paper=(
        "covers several objects of a class better than Grad-CAM: localisation score on Pascal VOC 0.34 against 0.33 at "
        "threshold 0, 0.38 against 0.28 at 1/4, 0.28 against 0.16 at 1/2 (VGG-16)"
    ),
    setting=SETTING,
    full=FULL,
    rule=Rule(holds=(Part("iou_several: Grad-CAM++ less Grad-CAM", "above"),), bed=RECOGNISED),
)
NAMES = ("iou_several", "iou_one", "energy", "pointing", "deletion", "insertion")


def measure(scale: Scale) -> list[dict[str, Any]]:
    arms = {
        "Grad-CAM++": lambda n, x, t: GradCamPlusPlus(steps=0)(n, x, t).attribution,
        "Grad-CAM": lambda n, x, t: GradCam(steps=0)(n, x, t).attribution,
    }
    return measure_arms(scale, arms)


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures = differences(rows, "Grad-CAM++", ("Grad-CAM",), NAMES)
    gain = figures["iou_several: Grad-CAM++ less Grad-CAM"]
    return Measured(
        f"IoU on several objects {mean(rows, 'Grad-CAM++', 'iou_several'):.3f} against "
        f"{mean(rows, 'Grad-CAM', 'iou_several'):.3f} (difference {told(gain, 1, 3)}).",
        figures,
        bed=bed_of(rows),
    )
