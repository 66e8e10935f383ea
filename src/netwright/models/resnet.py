"""Residual network for small images (Deep Residual Learning, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.models.parts.sizing import image_shape, sized


@dataclass(frozen=True)
class ResNet:
    """Three stages of n blocks with width, 2 width, 4 width channels; images (B, C, H, W) -> (B, outputs).

    depth: 6n + 2 (8, 14, 20, ...). Differs from the paper in the shortcuts that change shape: a 1x1 convolution
    with batch norm (its option B) instead of zero padding. size chooses the width.
    """

    depth: int = 20
    width: int = 16

    def __post_init__(self) -> None:
        if self.depth < 8 or (self.depth - 2) % 6:
            raise BadInput(f"a resnet's depth is 6n + 2 (8, 14, 20, ...), not {self.depth}")

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module:
        channels = image_shape(shape, "resnet")[0]
        make = lambda width: _ResNet(channels, classes, (self.depth - 2) // 6, width)
        return make(self.width) if size is None else sized(make, size, "resnet")


class _ResNet(nn.Module):
    def __init__(self, channels: int, classes: int, blocks: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.stage1 = _stage(width, width, blocks, 1)
        self.stage2 = _stage(width, 2 * width, blocks, 2)
        self.stage3 = _stage(2 * width, 4 * width, blocks, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation for convolutions; the other layers have initialisers of their own."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.head(self.pool(x).flatten(1))


def _stage(inner: int, outer: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(inner, outer, stride), *(_Block(outer, outer, 1) for _ in range(blocks - 1)))


class _Block(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), (B, inner, H, W) -> (B, outer, H / stride, W / stride)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outer)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outer)
        self.relu2 = nn.ReLU()
        same = inner == outer and stride == 1
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(out + self.shortcut(x))
