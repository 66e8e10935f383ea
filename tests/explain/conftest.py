"""Small convolutional networks whose explanations can be worked out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


class Cam(nn.Module):
    """Convolution, ReLU, global average, linear: the network of CAM."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def cam() -> nn.Module:
    torch.manual_seed(0)
    return Cam().eval()


@pytest.fixture
def deep() -> nn.Module:
    """Two convolutions, in-place ReLUs, a hidden layer behind the maps: gradients differ from cell to cell."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(5, 7, 3, padding=1), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(7 * 6 * 6, 16), nn.ReLU(inplace=True), nn.Linear(16, 4),
    ).eval()  # fmt: skip


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(2))
