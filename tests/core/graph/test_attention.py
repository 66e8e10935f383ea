"""Attention in the shapes that people give it: heads are units."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from netwright.core.graph import dependencies, mask, prune, trace


class WithWeights(nn.Module):
    """The module's slow path, which also computes the attention weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Linear(5, 16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.attend(x, x, x)[0].mean(1))


class Across(nn.Module):
    """Queries from one input, keys and values of another width from a second: three weights instead of one."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(16, 4, kdim=8, vdim=8, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(self.attend(x, y, y, need_weights=False)[0])


class Windows(nn.Module):
    """Windows of a map, a looked-up bias for each head and pair of places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Conv2d(3, 16, 1), nn.Linear(16, 48), nn.Linear(16, 16)
        self.bias = nn.Parameter(torch.randn(49, 4))
        self.register_buffer("place", torch.randint(0, 49, (16, 16)))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        b = x.shape[0]
        w = x.view(b, 2, 4, 2, 4, 16).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 16)
        q, k, v = self.qkv(w).reshape(-1, 16, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        a = (q * 0.5) @ k.transpose(-2, -1)
        a = a + self.bias[self.place.view(-1)].view(16, 16, 4).permute(2, 0, 1).unsqueeze(0)
        y = self.out((a.softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, 16))
        y = y.view(b, 2, 2, 4, 4, 16).permute(0, 1, 3, 2, 4, 5).reshape(b, 8, 8, 16)
        return self.head((x + y).mean((1, 2)))


TOKENS, MORE = (2, 6, 16), (2, 7, 16)
CASES = {
    "with weights": (WithWeights, ((2, 6, 5),), {"embed": 16, "attend": 4, "attend.out_proj": 16}),
    "across": (Across, ((2, 6, 16), (2, 7, 8)), {"attend": 4, "attend.out_proj": 16}),
    "windows": (Windows, ((2, 3, 8, 8),), {"embed": 16, "qkv": 4}),
    "encoder-decoder": (
        lambda: nn.Transformer(16, 4, 1, 1, 32, batch_first=True), (TOKENS, MORE),
        {"encoder.layers.0.self_attn": 4, "encoder.layers.0.linear1": 32, "decoder.layers.0.self_attn": 4,
         "decoder.layers.0.multihead_attn": 4, "decoder.layers.0.linear1": 32},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_heads_go_whole(name: str) -> None:
    make, shapes, sizes = CASES[name]
    network, example = make().eval(), tuple(torch.randn(s) for s in shapes)
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)  # biases start at zero
    found = dependencies(trace(network, example))
    assert {g.name: g.size for g in found.groups} == sizes
    inputs = tuple(torch.randn(5, *s[1:]) for s in shapes)
    for keep in [{n: range(0, size, 2) for n, size in sizes.items()}, *({n: [1]} for n in sizes)]:
        small, masked = prune(network, example, keep, found), mask(network, keep, found)
        with torch.no_grad():
            torch.testing.assert_close(small(*inputs), masked(*inputs), atol=1e-5, rtol=1e-5)
