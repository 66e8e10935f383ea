"""Multi-layer perceptron."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from netwright.models.parts.sizing import scaled, sized


@dataclass(frozen=True)
class MLP:
    """Linear layers with ReLU between, on the flattened input (B, ...) -> (B, outputs).

    widths: hidden sizes. norm: batch normalisation before each ReLU. size scales all widths together.
    """

    widths: tuple[int, ...] = (128, 128)
    norm: bool = False

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module:
        if size is None or not self.widths:
            return self._make(shape, classes, self.widths)
        return sized(lambda w: self._make(shape, classes, scaled(self.widths, w)), size, "mlp")

    def _make(self, shape: tuple[int, ...], classes: int, widths: tuple[int, ...]) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        inner = math.prod(shape)
        for width in widths:
            layers += [nn.Linear(inner, width)]
            layers += [nn.BatchNorm1d(width)] if self.norm else []
            layers += [nn.ReLU()]
            inner = width
        return nn.Sequential(*layers, nn.Linear(inner, classes))
