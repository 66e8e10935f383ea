"""A split whose images lie in a file mapped into memory, so that it may be larger than the memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from netwright.core.split import Batch


@dataclass(frozen=True)
class MappedSplit:
    """images (M, C, H, W) uint8, mapped from disk and shared by the splits; index (N,) chooses; targets (N,)."""

    images: Tensor
    targets: Tensor
    index: Tensor
    prepare: nn.Module | None = None

    def __len__(self) -> int:
        return len(self.index)

    def batches(self, size: int, *, shuffle: bool = False, seed: int = 0) -> Iterator[Batch]:
        n = len(self)
        order = (
            torch.randperm(n, generator=torch.Generator().manual_seed(seed)) if shuffle else torch.arange(n)
        )
        for chosen in order.split(size):
            x = self.images[self.index[chosen]]
            yield (x if self.prepare is None else self.prepare(x)), self.targets[chosen]

    def select(self, indices: Tensor) -> MappedSplit:
        return replace(self, targets=self.targets[indices], index=self.index[indices])


def channel_moments(images: Tensor, index: Tensor, at_most: int = 2000) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel of the chosen images, scaled to [0, 1]; from at most 2,000, evenly spaced."""
    chosen = index[:: max(1, len(index) // at_most)]
    total = torch.zeros(2, images.shape[1], dtype=torch.float64)
    pixels = 0
    for part in chosen.split(64):
        x = images[part].double() / 255
        total += torch.stack([x.sum((0, 2, 3)), x.pow(2).sum((0, 2, 3))])
        pixels += x[:, 0].numel()
    mean = total[0] / pixels
    std = (total[1] / pixels - mean**2).clamp_min(0).sqrt()
    return mean.tolist(), std.clamp_min(1e-3).tolist()
