"""Rotary attention: its units are whole heads, and cutting equals masking, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.core.graph.masked import held_to_its_mask
from torch import Tensor, nn

HEADS, WIDTH, TOKENS = 4, 24, 6


class Rotary(nn.Module):
    """Attention whose queries and keys are turned by their position. pairs: neighbours, or halves of a head.

    held: the angles are buffers; else they are computed as it runs.
    """

    def __init__(self, pairs: bool, fused: bool, held: bool = True) -> None:
        super().__init__()
        self.pairs, self.fused, self.held, self.depth = pairs, fused, held, WIDTH // HEADS
        self.first, self.last = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        for name, table in zip(("cosine", "sine"), self.angles(), strict=True):
            self.register_buffer(name, table)

    def angles(self) -> tuple[Tensor, Tensor]:
        rate = 100 ** (-torch.arange(0, self.depth, 2) / self.depth)
        angle = torch.outer(torch.arange(TOKENS).double(), rate.double())
        angle = angle.repeat_interleave(2, -1) if self.pairs else torch.cat([angle, angle], -1)
        return angle.cos(), angle.sin()

    def turned(self, x: Tensor) -> Tensor:
        cosine, sine = (self.cosine, self.sine) if self.held else self.angles()
        if self.pairs:
            other = torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)
        else:
            low, high = x.chunk(2, -1)
            other = torch.cat([-high, low], -1)
        return x * cosine + other * sine

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        q, k, v = (
            layer(x).view(*x.shape[:2], HEADS, self.depth).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        q, k = self.turned(q), self.turned(k)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-1, -2) / self.depth**0.5, -1) @ v
        return self.last(x + self.o(y.transpose(1, 2).flatten(2))).mean(1)


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_rotary_attention_loses_whole_heads(pairs: bool, fused: bool, held: bool) -> None:
    torch.manual_seed(0)
    net = Rotary(pairs, fused, held).double().eval()
    sizes = held_to_its_mask(net, torch.randn(3, TOKENS, 5, dtype=torch.float64))
    assert sizes == {"first": WIDTH, "q": HEADS}
