"""Smooth Grad-CAM++: Grad-CAM++ with derivatives averaged over noisy copies of the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netwright.core.budget import in_time
from netwright.core.contracts import Explanation
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.network import Inputs, as_tuple
from netwright.explain.parts.cam import (
    Look,
    choose_layer,
    draw,
    look,
    on_device,
    picture_index,
    plus_plus,
    weighted_map,
)  # fmt: skip
from netwright.explain.parts.faithfulness import deletion_insertion


@dataclass(frozen=True)
class SmoothGradCamPlusPlus:
    """A sharper Grad-CAM++ map of a layer, a subset of its channels or a window of its cells.

    Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique (Omeiza et al., arXiv 1908.01224).
    (network, inputs (B, ...), target (B,)) -> maps (B, H, W) in [0, 1]. The activation is the clean input's;
    the derivatives D1 = e^S g, D2 = e^S g^2, D3 = e^S g^3 are averaged over `samples` copies with Gaussian noise
    of standard deviation `sigma`, in units of the network's (normalised) input. Where we differ: the paper
    prints D1 as alpha's numerator, its derivation gives D2, which is used; e^S, which weighs one noisy copy
    against another, is kept (torchcam drops it, and takes only the last copy inside the ReLU). The paper's own
    samples and sigma could not be established; the defaults are torchcam's. Behind the last maps of a network that
    ends in global averaging and one linear layer the derivatives do not depend on the input, and the map is
    Grad-CAM++'s exactly: an earlier layer is then the better choice.

    layer, steps: as for Grad-CAM. channels: those that count in the map. window: (top, left, bottom, right) in
    cells of the layer. Noise goes to the picture; without one to the first floating input.
    Raises NotApplicable for networks without a layer that gives maps or without a floating input.
    """

    samples: int = 4
    sigma: float = 0.3
    layer: str | None = None
    channels: tuple[int, ...] | None = None
    window: tuple[int, int, int, int] | None = None
    steps: int = 16
    seed: int = 0

    def __call__(self, network: nn.Module, inputs: Inputs, target: Tensor | None = None) -> Explanation:
        if self.samples < 1:
            raise BadInput("Smooth Grad-CAM++ needs at least 1 sample")
        inputs = on_device(network, inputs)
        layer = choose_layer(network, inputs, self.layer)
        clean = look(network, inputs, layer, target)
        activation = clean.activation.double()
        weights = plus_plus(activation, *_mean_derivatives(self._noisy(network, inputs, layer, clean.target)))
        heat = draw(weighted_map(activation, weights, self.channels, self.window), inputs)
        scores = deletion_insertion(network, inputs, heat, clean.target, self.steps) if self.steps else {}
        return Explanation(heat, clean.target, "smooth-gradcampp", scores)

    def _noisy(self, network: nn.Module, inputs: Inputs, layer: str, target: Tensor) -> Iterator[Look]:
        tensors = list(as_tuple(inputs))
        index = picture_index(inputs)
        if index is None:
            index = next((i for i, t in enumerate(tensors) if t.is_floating_point()), None)
        if index is None:
            raise NotApplicable(
                "Smooth Grad-CAM++ adds noise to the input; this network has no floating input"
            )
        generator = torch.Generator().manual_seed(self.seed)
        for _ in in_time(range(self.samples)):
            # drawn on the CPU, so that every device sees the same noise
            noise = torch.randn(tensors[index].shape, generator=generator).to(tensors[index])
            copy = tensors[index] + self.sigma * noise
            yield look(network, (*tensors[:index], copy, *tensors[index + 1 :]), layer, target)


def _mean_derivatives(looks: Iterator[Look]) -> tuple[Tensor, Tensor, Tensor]:
    """Means of e^S g, e^S g^2 and e^S g^3 over the looks, (B, K, h, w) each, but for a factor per example.

    The factor e^-max(S) keeps large scores finite; alpha does not see it, and the map is scaled anyway.
    """
    seen = list(looks)
    scores = torch.stack([s.score.double() for s in seen])
    factors = (scores - scores.amax(0)).exp()[..., None, None, None] / len(seen)
    powers = [
        sum(factor * s.gradient.double() ** power for factor, s in zip(factors, seen, strict=True))
        for power in (1, 2, 3)
    ]
    return powers[0], powers[1], powers[2]  # type: ignore[return-value]
