"""A bed for tests that train: two kinds of stripes, which a small convolutional network tells apart."""

from __future__ import annotations

import torch
from torch import nn

from netwright.core.fit import Fit
from netwright.core.network import seeded
from netwright.core.task import Task


def stripes(width: int, epochs: int) -> tuple[nn.Module, Task]:
    """A network of two convolutions, the first with `width` channels, trained, and its task."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(320) % 2
    x = torch.randn(320, 1, 8, 8, generator=generator)
    x[y == 0] += torch.tensor([1.0, -1.0]).repeat(4)
    x[y == 1] += torch.tensor([1.0, -1.0]).repeat(4)[:, None]
    task = Task.from_arrays(x, y, name="stripes", meaning="image")
    with seeded(0):
        network = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip
    Fit(epochs=epochs, batch_size=32, lr=1e-2)(network, task)
    return network.eval(), task
