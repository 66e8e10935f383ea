"""Grad-CAM: channels weighted by their mean gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from netwright.core.contracts import Explanation
from netwright.core.network import Inputs
from netwright.explain.parts.cam import choose_layer, draw, look, on_device, weighted_map
from netwright.explain.parts.faithfulness import deletion_insertion


@dataclass(frozen=True)
class GradCam:
    """Where the evidence for a class lies: a layer's channels, weighted by the mean gradient of the class score.

    Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization (Selvaraju et al.,
    arXiv 1610.02391). (network, inputs (B, ...), target (B,)) -> maps (B, H, W) in [0, 1], enlarged to the
    picture. layer: a place's name, default the last one that gives maps. steps: points of the deletion and
    insertion curves in `scores`; 0 leaves them out. Raises NotApplicable for networks without such a layer.
    """

    layer: str | None = None
    steps: int = 16

    def __call__(self, network: nn.Module, inputs: Inputs, target: Tensor | None = None) -> Explanation:
        inputs = on_device(network, inputs)
        seen = look(network, inputs, choose_layer(network, inputs, self.layer), target)
        heat = draw(weighted_map(seen.activation, seen.gradient.mean((2, 3))), inputs)
        scores = deletion_insertion(network, inputs, heat, seen.target, self.steps) if self.steps else {}
        return Explanation(heat, seen.target, "grad-cam", scores)
