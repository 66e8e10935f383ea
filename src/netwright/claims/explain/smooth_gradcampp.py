"""What Omeiza et al. show of Smooth Grad-CAM++, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.maps import FULL, RECOGNISED, SETTING, bed_of, measure_arms, smooth_gradient
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import arms_of, differences, mean, told
from netwright.explain.grad_cam import GradCam
from netwright.explain.grad_cam_plus_plus import GradCamPlusPlus
from netwright.explain.smooth_gradcampp import SmoothGradCamPlusPlus

OURS = "Smooth Grad-CAM++"
CLAIM = Claim(
    slug="smooth-gradcampp",
    paper="sharper maps, better localised objects than Grad-CAM and Grad-CAM++; shown in pictures, without a figure",
    setting=(
        f"{SETTING}; in place of global averaging a hidden layer of 64 over the flattened maps, as in VGG-16; "
        "5 passes for Smooth Grad-CAM++ (4 noisy copies, sigma 0.3) and for SmoothGrad"
    ),
    full=FULL,
    rule=Rule(holds=(Part(f"iou_several: {OURS} less Grad-CAM++", "above"),), bed=RECOGNISED),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    arms = {
        OURS: lambda n, x, t: SmoothGradCamPlusPlus(steps=0)(n, x, t).attribution,
        "Grad-CAM++": lambda n, x, t: GradCamPlusPlus(steps=0)(n, x, t).attribution,
        "Grad-CAM": lambda n, x, t: GradCam(steps=0)(n, x, t).attribution,
        "SmoothGrad": smooth_gradient,
    }
    return measure_arms(scale, arms, hidden=True)


def judge(rows: list[dict[str, Any]]) -> Measured:
    others = [arm for arm in arms_of(rows) if arm != OURS]
    names = ("iou_several", "iou_one", "energy", "pointing", "deletion", "insertion")
    figures = differences(rows, OURS, others, names)
    listed = ", ".join(f"{arm} {mean(rows, arm, 'iou_several'):.3f}" for arm in (OURS, *others))
    return Measured(
        f"IoU on several objects: {listed}; gain over Grad-CAM++ "
        f"{told(figures[f'iou_several: {OURS} less Grad-CAM++'], 1, 4)}.",
        figures,
        bed=bed_of(rows),
        notes=(
            "A first run on the network with global averaging gave both methods the same maps in every scene: behind "
            "averaging and one linear layer the derivatives at the last maps do not depend on the input, so there is "
            "nothing to smooth. The network was changed for that reason, before this figure was known."
        ),
    )
