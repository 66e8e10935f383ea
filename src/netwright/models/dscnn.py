"""Depthwise-separable network (MobileNets, arXiv 1704.04861), scaled to small images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from netwright.models.parts.sizing import image_shape, initialise, scaled, sized


@dataclass(frozen=True)
class DSCNN:
    """A 3x3 convolution, then depthwise 3x3 and pointwise 1x1 pairs; images (B, C, H, W) -> (B, outputs).

    widths: channels of the stem and of each pair; the map is halved whenever the width grows and its shorter
    side is at least 4. Batch norm and ReLU after each convolution. size scales all widths together.
    """

    widths: tuple[int, ...] = (32, 64, 64, 128, 128, 256)

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module:
        shape = image_shape(shape, "dscnn")
        if size is None:
            return self._make(shape, classes, self.widths)
        return sized(lambda w: self._make(shape, classes, scaled(self.widths, w)), size, "dscnn")

    def _make(self, shape: tuple[int, int, int], classes: int, widths: tuple[int, ...]) -> nn.Module:
        inner, side = widths[0], min(shape[1:])
        layers = [_unit(shape[0], inner, 3, 1, 1)]
        # where to halve is read from the unscaled widths, so that every size has the same layout
        for width, before, after in zip(widths[1:], self.widths, self.widths[1:], strict=False):
            stride = 2 if after > before and side >= 4 else 1
            side = -(-side // stride)
            layers += [_unit(inner, inner, 3, stride, inner), _unit(inner, width, 1, 1, 1)]
            inner = width
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, classes)]
        return initialise(_DSCNN(*layers, *head))


class _DSCNN(nn.Sequential):
    """The layers one after the other, and how they are drawn anew."""

    def reset_parameters(self) -> None:
        initialise(self)


def _unit(inner: int, outer: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outer),
        nn.ReLU(),
    )
