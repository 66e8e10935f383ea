"""Random changes of training images, batch by batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def flip_and_crop(images: Tensor, generator: torch.Generator, border: int = 4) -> Tensor:
    """Each image mirrored with probability one half, then shifted by up to `border` pixels each way.

    images: (B, C, H, W), normalised, so that the zeros that come in are the mean colour.
    """
    flip = torch.rand(len(images), generator=generator) < 0.5
    return shift(torch.where(flip[:, None, None, None], images.flip(3), images), generator, border)


def shift(images: Tensor, generator: torch.Generator, border: int, fill: float = 0.0) -> Tensor:
    """Each image (B, C, H, W) shifted by up to `border` pixels each way; `fill` comes in from outside."""
    count, _, height, width = images.shape
    padded = F.pad(images, (border,) * 4, value=fill)
    top, left = torch.randint(0, 2 * border + 1, (2, count, 1), generator=generator)
    rows = (top + torch.arange(height))[:, None, :, None]
    columns = (left + torch.arange(width))[:, None, None, :]
    batch = torch.arange(count)[:, None, None, None]
    channel = torch.arange(images.shape[1])[None, :, None, None]
    return padded[batch, channel, rows, columns]
