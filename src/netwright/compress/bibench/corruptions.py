"""Inputs made worse in five ways, whatever their scale: what a network of signs loses on them, its float original may
lose too."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Corruption = Callable[[Tensor, torch.Generator], Tensor]
"""(B, ...) floats -> the same shape. Strengths are in units of the batch's own deviation."""


def noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise of half a deviation."""
    return x + 0.5 * x.std() * torch.randn(x.shape, generator=generator).to(x)


def impulses(x: Tensor, generator: torch.Generator) -> Tensor:
    """One value in twenty is the least or the largest of the batch."""
    drawn = torch.rand(x.shape, generator=generator).to(x)
    return torch.where(drawn < 0.025, x.amin(), torch.where(drawn > 0.975, x.amax(), x))


def brightness(x: Tensor, generator: torch.Generator) -> Tensor:
    """Half a deviation is added."""
    return x + 0.5 * x.std()


def contrast(x: Tensor, generator: torch.Generator) -> Tensor:
    """Half as far from each example's mean."""
    mean = x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))
    return mean + 0.5 * (x - mean)


def blur(x: Tensor, generator: torch.Generator) -> Tensor:
    """The mean of each value and its neighbours along the last axis, and the one before it in images."""
    if x.dim() == 4:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    rows = x.reshape(len(x), -1, x.shape[-1])
    return F.avg_pool1d(rows, 3, 1, 1, count_include_pad=False).view_as(x)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": noise, "impulses": impulses, "brightness": brightness, "contrast": contrast, "blur": blur,
}  # fmt: skip
