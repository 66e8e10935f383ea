"""What Selvaraju et al. say of Grad-CAM, measured here."""

from __future__ import annotations

from netwright.claims.explain.bed import FULL, SETTING, centre, gradient, measure_arms, smooth_gradient
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean
from netwright.explain.grad_cam import GradCam

CLAIM = Claim(
    slug="grad-cam",
    paper="locates objects better than the gradient of the pixels: top-1 error 56.5 against 61.1 % (VGG-16, ILSVRC-15)",
    setting=SETTING,
    full=FULL,
    holds_if=(
        "IoU and share of the map's energy inside the boxes above those of pixel gradients, SmoothGrad and a bump "
        "in the middle, all 95 % intervals above 0; mixed if only against some"
    ),
)
BASELINES = ("pixel gradient", "SmoothGrad", "bump in the middle")


def measure(scale: Scale) -> Measured:
    arms = {
        "Grad-CAM": lambda n, x, t: GradCam(steps=0)(n, x, t).attribution,
        "pixel gradient": gradient,
        "SmoothGrad": smooth_gradient,
        "bump in the middle": centre,
    }
    rows = measure_arms(scale, arms)
    figures = {
        f"{name}: Grad-CAM less {other}": difference(rows, "Grad-CAM", other, name)
        for other in BASELINES
        for name in ("iou_several", "energy", "pointing")
    }
    above = [
        figures[f"{name}: Grad-CAM less {other}"]["interval"][0] > 0
        for other in BASELINES
        for name in ("iou_several", "energy")
    ]
    listed = ", ".join(
        f"{arm} {mean(rows, arm, 'iou_several'):.2f} and {100 * mean(rows, arm, 'energy'):.0f} %"
        for arm in arms
    )
    return Measured(
        rows,
        "holds" if all(above) else "mixed" if any(above) else "does not hold here",
        f"IoU on several objects and energy inside the boxes: {listed}.",
        figures,
    )
