"""Visual Attention Network (arXiv 2202.09741): four standard convolutions as an attention gate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netwright.models.parts.sizing import image_shape, initialise, scaled, sized


class LKA(nn.Module):
    """Large kernel attention, (B, dim, H, W) -> same: x * pointwise(dilated depthwise(depthwise(x))).

    The gate sees 23x23 pixels: depthwise 5x5, then depthwise 7x7 with dilation 3. No sigmoid.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.far = nn.Conv2d(dim, dim, 7, padding=9, groups=dim, dilation=3)
        self.mix = nn.Conv2d(dim, dim, 1)

    def gate(self, x: Tensor) -> Tensor:
        return self.mix(self.far(self.near(x)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class SpatialAttention(nn.Module):
    """A(x) = x + 1x1(LKA(GELU(1x1 x))), (B, dim, H, W) -> same. Its own skip, beside the block's."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.into, self.act = nn.Conv2d(dim, dim, 1), nn.GELU()
        self.lka = LKA(dim)
        self.out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.lka(self.act(self.into(x))))


class LKABlock(nn.Module):
    """x += g1 A(norm x); x += g2 F(norm x), (B, dim, H, W) -> same; a drop-in layer.

    F: 1x1 to ratio * dim, depthwise 3x3, GELU, 1x1 back. g1, g2 (dim,) start at 0.01.
    drop: probability of leaving a branch out for an example, in training (stochastic depth).
    """

    def __init__(self, dim: int, ratio: int = 4, drop: float = 0.0) -> None:
        super().__init__()
        hidden = ratio * dim
        self.norm1, self.attention = nn.BatchNorm2d(dim), SpatialAttention(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.feed = nn.Sequential(
            nn.Conv2d(dim, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Conv2d(hidden, dim, 1),
        )
        self.scale1 = nn.Parameter(torch.empty(dim, 1, 1))
        self.scale2 = nn.Parameter(torch.empty(dim, 1, 1))
        self.drop = drop
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The layer scales at their start; the layers inside have initialisers of their own."""
        nn.init.constant_(self.scale1, 1e-2)
        nn.init.constant_(self.scale2, 1e-2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._drop_path(self.scale1 * self.attention(self.norm1(x)))
        return x + self._drop_path(self.scale2 * self.feed(self.norm2(x)))

    def _drop_path(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop == 0.0:
            return branch
        keep = 1.0 - self.drop
        return branch * torch.bernoulli(branch.new_full((branch.shape[0], 1, 1, 1), keep)) / keep


VARIANTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "b0": ((32, 64, 160, 256), (3, 3, 5, 2)),
    "b1": ((64, 128, 320, 512), (2, 2, 4, 2)),
    "b2": ((64, 128, 320, 512), (3, 3, 12, 3)),
    "b3": ((64, 128, 320, 512), (3, 5, 27, 3)),
}


@dataclass(frozen=True)
class VAN:
    """Four stages of LKA blocks, images (B, C, H, W) -> (B, classes).

    dims, depths, ratios: channels, blocks and expansion of each stage (defaults: B0; `VARIANTS` has the others).
    stem: stride of the first convolution. Default by the shorter side: 4 (kernel 7) from 64 pixels on; below
    that 2 from 24 pixels on, else 1 (kernel 3), and the last stage is left out, as the map would vanish.
    drop: drop-path rate of the last block, rising linearly from 0 (B3: 0.2). size scales the dims together.

    Paper: Visual Attention Network, arXiv 2202.09741. Trained there with AdamW 1e-3 at batch 1024, weight decay
    0.05, 300 epochs, cosine. We differ in the stem for small images only.
    """

    dims: tuple[int, ...] = VARIANTS["b0"][0]
    depths: tuple[int, ...] = VARIANTS["b0"][1]
    ratios: tuple[int, ...] = (8, 8, 4, 4)
    stem: int | None = None
    drop: float = 0.1

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module:
        shape = image_shape(shape, "van")
        if size is None:
            return VisualAttentionNetwork(self, shape, classes, self.dims)
        make = lambda w: VisualAttentionNetwork(self, shape, classes, scaled(self.dims, w))
        return sized(make, size, "van")


class VisualAttentionNetwork(nn.Module):
    """The network that `VAN` builds: stages `stages.0`, `stages.1`, ..., then mean pooling and `head`."""

    def __init__(self, plan: VAN, shape: tuple[int, int, int], classes: int, dims: tuple[int, ...]) -> None:
        super().__init__()
        side = min(shape[1:])
        stem = plan.stem or (4 if side >= 64 else 2 if side >= 24 else 1)
        used = len(plan.depths) if side >= 64 else min(3, len(plan.depths))
        rates = torch.linspace(0, plan.drop, sum(plan.depths[:used]), device="cpu").tolist()
        inner, stages = shape[0], []
        for i, (dim, depth, ratio) in enumerate(
            zip(dims[:used], plan.depths[:used], plan.ratios[:used], strict=True)
        ):
            first = (7 if stem == 4 else 3, stem) if i == 0 else (3, 2)
            start = sum(plan.depths[:i])
            blocks = [LKABlock(dim, ratio, rates[start + j]) for j in range(depth)]
            stages.append(_Stage(inner, dim, *first, blocks))
            inner = dim
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inner, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x).mean((2, 3)))


class _Stage(nn.Module):
    """Overlapping convolution with batch norm, blocks, layer norm over channels."""

    def __init__(self, inner: int, dim: int, kernel: int, stride: int, blocks: list[LKABlock]) -> None:
        super().__init__()
        self.embed = nn.Conv2d(inner, dim, kernel, stride, kernel // 2)
        self.embed_norm = nn.BatchNorm2d(dim)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.embed_norm(self.embed(x)))
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
