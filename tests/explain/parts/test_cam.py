from __future__ import annotations

import torch
from torch import Tensor, nn

from netwright.explain.parts.cam import spatial_places


def test_a_linear_layer_beside_the_maps_hides_none_of_them() -> None:
    """A gate of linear layers works on means; the convolution behind it still gives maps."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.gate, self.after = nn.Conv2d(1, 4, 3), nn.Linear(4, 4), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x)
            x = x * self.gate(x.mean((2, 3))).sigmoid()[..., None, None]
            return self.after(x).mean((2, 3))

    assert spatial_places(Gated(), torch.randn(2, 1, 9, 9)) == ["before", "after"]


def test_maps_with_their_channels_last_are_none_nor_what_follows_them_value_by_value() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.bend = nn.Conv2d(1, 4, 3), nn.LayerNorm(4), nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            return self.bend(self.norm(self.conv(x).permute(0, 2, 3, 1))).mean((1, 2))

    assert spatial_places(Last(), torch.randn(2, 1, 9, 9)) == ["conv"]
