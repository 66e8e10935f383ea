"""VanillaNet: a few convolutions one behind the other, trained as twice as many (arXiv 2305.12972)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.network import clone
from netwright.core.weights.fold import absorb, swap
from netwright.models.parts.sizing import image_shape, scaled, sized

_EPS = 1e-6


def _variant(*widths_and_strides: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Dims and strides from (width, stride) of each stage, behind a stem of width 512."""
    return (512, *(w for w, _ in widths_and_strides)), tuple(s for _, s in widths_and_strides)


# depth: channels of the stem and of each stage, and each stage's stride
VARIANTS: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    5: _variant((1024, 2), (2048, 2), (4096, 2)),
    6: _variant((1024, 2), (2048, 2), (4096, 2), (4096, 1)),
    7: _variant((512, 1), (1024, 2), (2048, 2), (4096, 2), (4096, 1)),
    **{
        depth: _variant(
            (512, 1), (1024, 2), (2048, 2), *[(2048, 1)] * (depth - 7), (4096, 2), (4096, 1)
        )
        for depth in range(8, 14)
    },
}  # fmt: skip


@dataclass(frozen=True)
class VanillaNet:
    """A stem, stages of a 1x1 convolution and max pooling, mean pooling, a classifier; no shortcut.
    Images (B, C, H, W) -> (B, outputs).

    depth: 5 to 13 convolutions, the classifier counted (`VARIANTS`). dims, strides: other channels (of the stem and of
    each stage) and strides. deep: each convolution is trained as two with batch norm and a rectifier between whose
    slope for negative values rises to 1 (`Slope`); then `fuse()` gives the shallow network. series: n of the activation
    of (2n + 1)^2 shifted rectifiers per channel (`Series`); 0: a plain ReLU. Default 3, or 1 below 64 pixels, where
    the stem is a 3x3 convolution of stride 1 too, in place of 4x4 of stride 4. size scales the dims together and counts
    the parameters of the network as it is trained.

    Paper: VanillaNet: the Power of Minimalism in Deep Learning. We differ in the stem for small images only.
    """

    depth: int = 5
    dims: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    deep: bool = True
    series: int | None = None
    dropout: float = 0.05

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module:
        shape = image_shape(shape, "vanillanet")
        if self.depth not in VARIANTS:
            raise BadInput(f"a vanillanet's depth is 5 to 13, not {self.depth}")
        dims, strides = VARIANTS[self.depth]
        dims, strides = self.dims or dims, self.strides or strides
        if len(dims) != len(strides) + 1:
            raise BadInput(
                "dims are the stem's channels and those of each stage, strides those of each stage"
            )
        make = lambda first: VanillaNetwork(self, shape, classes, scaled(dims, first), strides)
        return make(dims[0]) if size is None else sized(make, size, "vanillanet")


class VanillaNetwork(nn.Module):
    """The network that `VanillaNet` builds. dims: its channels."""

    def __init__(
        self, plan: VanillaNet, shape: tuple[int, int, int], classes: int, dims: tuple[int, ...],
        strides: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        self.dims = dims
        small = min(shape[1:]) < 64
        kernel, stride, padding = (3, 1, 1) if small else (4, 4, 0)
        series = (1 if small else 3) if plan.series is None else plan.series
        activation = lambda dim: Series(dim, series) if series else nn.ReLU()
        stem = nn.Conv2d(shape[0], dims[0], kernel, stride, padding)
        body: list[nn.Module] = [Convolution(stem, dims[0], plan.deep), activation(dims[0])]
        for inner, outer, step in zip(dims[:-1], dims[1:], strides, strict=True):
            first = nn.Conv2d(inner, inner if plan.deep else outer, 1)
            body += [Convolution(first, outer, plan.deep), *([nn.MaxPool2d(step)] if step > 1 else [])]
            body += [activation(outer)]
        self.body = nn.Sequential(*body)
        self.pool, self.drop = nn.AdaptiveAvgPool2d(1), nn.Dropout(plan.dropout)
        self.head = Convolution(nn.Conv2d(dims[-1], classes, 1), classes, plan.deep, norm=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal weights, as in the paper's code; batch norms have initialisers of their own."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.pool(self.body(x)))).flatten(1)

    def fuse(self) -> nn.Module:
        """A shallow copy for inference: one convolution in place of each pair, batch norms folded. BadInput before
        every slope is 1, for only then is a pair linear."""
        slopes = [m.slope.item() for m in self.modules() if isinstance(m, Slope)]
        if any(slope != 1.0 for slope in slopes):
            raise BadInput(f"the slope is {min(slopes):g} still: it fuses at 1, where deep training ends")
        kinds = (Convolution, Series)
        return swap(self, lambda _name, m: isinstance(m, kinds), lambda _name, m: m.fused()).eval()  # type: ignore[operator]


class Slope(nn.Module):
    """A'(x) = (1 - slope) relu(x) + slope x, elementwise. Starts as a ReLU; at slope 1 it is nothing."""

    slope: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slope", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return (1 - self.slope) * F.relu(x) + self.slope * x


class Convolution(nn.Module):
    """A convolution and its batch norm; deep: a 1x1 convolution to `outer` channels behind them, with a `Slope`
    between. norm: whether the last convolution has a batch norm."""

    def __init__(self, first: nn.Conv2d, outer: int, deep: bool, norm: bool = True) -> None:
        super().__init__()
        self.first, self.deep = first, deep
        self.norm1 = nn.BatchNorm2d(first.out_channels, eps=_EPS) if deep or norm else nn.Identity()
        if deep:
            self.slope, self.second = Slope(), nn.Conv2d(first.out_channels, outer, 1)
            self.norm2 = nn.BatchNorm2d(outer, eps=_EPS) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.first(x))
        return self.norm2(self.second(self.slope(x))) if self.deep else x

    def fused(self) -> nn.Conv2d:
        """One convolution: W = W2 W1, b = W2 b1 + b2, computed in float64."""
        first = _folded(self.first, self.norm1)
        if not self.deep:
            return first
        second = _folded(self.second, self.norm2)
        product = second.weight.double().flatten(1)
        c = self.first
        merged = nn.Conv2d(c.in_channels, len(product), c.kernel_size, c.stride, c.padding)  # type: ignore[arg-type]
        merged.to(first.weight)
        with torch.no_grad():
            merged.weight.copy_(torch.einsum("om,mikl->oikl", product, first.weight.double()))
            merged.bias.copy_(product @ first.bias.double() + second.bias.double())  # type: ignore[union-attr]
        return merged


class Series(nn.Module):
    """sum_i a_i relu(x + b_i), the shifts taken from the neighbours: a ReLU, a depthwise convolution of 2n + 1, a batch
    norm; (B, dim, H, W) -> the same shape."""

    def __init__(self, dim: int, n: int = 3) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.near = nn.Conv2d(dim, dim, 2 * n + 1, padding=n, groups=dim, bias=False)
        self.norm = nn.BatchNorm2d(dim, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.near(self.relu(x)))

    def fused(self) -> nn.Sequential:
        return nn.Sequential(nn.ReLU(), _folded(self.near, self.norm))


def _folded(convolution: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """A copy with the batch norm inside."""
    copied = clone(convolution)
    if isinstance(norm, nn.BatchNorm2d):
        absorb(copied, norm)
    assert isinstance(copied, nn.Conv2d)
    return copied
