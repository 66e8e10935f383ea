"""What Omeiza et al. show of Smooth Grad-CAM++, measured here."""

from __future__ import annotations

from netwright.claims.explain.bed import FULL, SETTING, measure_arms, smooth_gradient
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean
from netwright.explain.grad_cam import GradCam
from netwright.explain.grad_cam_plus_plus import GradCamPlusPlus
from netwright.explain.smooth_gradcampp import SmoothGradCamPlusPlus

CLAIM = Claim(
    slug="smooth-gradcampp",
    paper="sharper maps, better localised objects than Grad-CAM and Grad-CAM++; shown in pictures, without a figure",
    setting=(
        f"{SETTING}; in place of global averaging a hidden layer of 64 over the flattened maps, as in VGG-16; "
        "5 passes for Smooth Grad-CAM++ (4 noisy copies, sigma 0.3) and for SmoothGrad"
    ),
    full=FULL,
    holds_if="IoU on scenes of several objects above that of Grad-CAM++, its 95 % interval above 0",
)
OURS = "Smooth Grad-CAM++"


def measure(scale: Scale) -> Measured:
    arms = {
        OURS: lambda n, x, t: SmoothGradCamPlusPlus(steps=0)(n, x, t).attribution,
        "Grad-CAM++": lambda n, x, t: GradCamPlusPlus(steps=0)(n, x, t).attribution,
        "Grad-CAM": lambda n, x, t: GradCam(steps=0)(n, x, t).attribution,
        "SmoothGrad": smooth_gradient,
    }
    rows = measure_arms(scale, arms, hidden=True)
    figures = {
        f"{name}: {OURS} less {other}": difference(rows, OURS, other, name)
        for other in list(arms)[1:]
        for name in ("iou_several", "iou_one", "energy", "pointing", "deletion", "insertion")
    }
    gain = figures[f"iou_several: {OURS} less Grad-CAM++"]
    listed = ", ".join(f"{arm} {mean(rows, arm, 'iou_several'):.3f}" for arm in arms)
    return Measured(
        rows,
        "holds" if gain["interval"][0] > 0 else "does not hold here",
        f"IoU on several objects: {listed}; gain over Grad-CAM++ {gain['mean']:+.4f} "
        f"[{gain['interval'][0]:+.4f}, {gain['interval'][1]:+.4f}].",
        figures,
        notes=(
            "A first run on the network with global averaging gave both methods the same maps in every scene: behind "
            "averaging and one linear layer the derivatives at the last maps do not depend on the input, so there is "
            "nothing to smooth. The network was changed for that reason, before this figure was known."
        ),
    )
