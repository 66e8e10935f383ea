"""Small vision transformer (An Image is Worth 16x16 Words, arXiv 2010.11929)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netwright.models.parts.sizing import image_shape, initialise, sized
from netwright.models.parts.transformer import Block


@dataclass(frozen=True)
class ViT:
    """Patches, transformer blocks, mean over patches; images (B, C, H, W) -> (B, outputs).

    width: hidden size, a multiple of heads. patch: its side in pixels, default a seventh of the shorter side,
    at least 2; images are padded with zeros to whole patches. Differs from the paper: mean pooling instead of a
    class token. size chooses the width.
    """

    width: int = 64
    depth: int = 4
    heads: int = 4
    patch: int | None = None
    dropout: float = 0.0

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module:
        shape = image_shape(shape, "vit")
        if size is None:
            return _ViT(self, shape, classes, self.width)
        return sized(lambda w: _ViT(self, shape, classes, w * self.heads), size, "vit")


class _ViT(nn.Module):
    def __init__(self, plan: ViT, shape: tuple[int, int, int], classes: int, width: int) -> None:
        super().__init__()
        channels, height, wide = shape
        patch = plan.patch or max(2, round(min(height, wide) / 7))
        rows, columns = -(-height // patch), -(-wide // patch)
        spare = (0, columns * patch - wide, 0, rows * patch - height)
        self.pad: nn.Module = nn.ZeroPad2d(spare) if any(spare) else nn.Identity()
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.position = nn.Parameter(torch.empty(1, rows * columns, width))
        self.blocks = nn.ModuleList(
            Block(width, plan.heads, 2 * width, plan.dropout) for _ in range(plan.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        initialise(self)
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(self.pad(x)).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))
