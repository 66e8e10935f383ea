"""Plain convolutional network."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from netwright.models.parts.sizing import image_shape, scaled, sized


@dataclass(frozen=True)
class CNN:
    """3x3 convolutions with ReLU, images (B, C, H, W) -> (B, outputs).

    widths: channels of each convolution; the map is halved after each (max pooling) while its shorter side is
    at least 4. norm: batch normalisation (convolutions then have no bias). The head is global average pooling
    and one linear layer, so any image size works. size scales all widths together.
    """

    widths: tuple[int, ...] = (32, 64, 128)
    norm: bool = True

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module:
        shape = image_shape(shape, "cnn")
        if size is None:
            return self._make(shape, classes, self.widths)
        return sized(lambda w: self._make(shape, classes, scaled(self.widths, w)), size, "cnn")

    def _make(self, shape: tuple[int, int, int], classes: int, widths: tuple[int, ...]) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inner, side = shape[0], min(shape[1:])
        for i, width in enumerate(widths, 1):
            layers[f"conv{i}"] = nn.Conv2d(inner, width, 3, padding=1, bias=not self.norm)
            if self.norm:
                layers[f"norm{i}"] = nn.BatchNorm2d(width)
            layers[f"relu{i}"] = nn.ReLU()
            if side >= 4:
                layers[f"pool{i}"] = nn.MaxPool2d(2)
                side //= 2
            inner = width
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["head"] = nn.Linear(inner, classes)
        return nn.Sequential(layers)
