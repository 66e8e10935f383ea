"""Grad-CAM++: channels weighted by a sum of positive gradients, each place by its share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from netwright.core.contracts import Explanation
from netwright.core.network import Inputs
from netwright.explain.parts.cam import choose_layer, draw, look, on_device, plus_plus, weighted_map
from netwright.explain.parts.faithfulness import deletion_insertion


@dataclass(frozen=True)
class GradCamPlusPlus:
    """Like Grad-CAM, with weights that do not shrink for objects which fill few cells or appear several times.

    Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks (Chattopadhyay et al.,
    arXiv 1710.11063). The class score is e^S with piecewise linear layers, so that its second and third
    derivatives are e^S g^2 and e^S g^3; the common factor e^S leaves with the scaling to [0, 1].
    (network, inputs (B, ...), target (B,)) -> maps (B, H, W). layer, steps: as for Grad-CAM. Raises
    NotApplicable for networks without a layer that gives maps.
    """

    layer: str | None = None
    steps: int = 16

    def __call__(self, network: nn.Module, inputs: Inputs, target: Tensor | None = None) -> Explanation:
        inputs = on_device(network, inputs)
        seen = look(network, inputs, choose_layer(network, inputs, self.layer), target)
        activation, g = seen.activation.double(), seen.gradient.double()
        heat = draw(weighted_map(activation, plus_plus(activation, g, g**2, g**3)), inputs)
        scores = deletion_insertion(network, inputs, heat, seen.target, self.steps) if self.steps else {}
        return Explanation(heat, seen.target, "grad-cam-plus-plus", scores)
