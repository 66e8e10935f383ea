"""Small decoder for language: the next token at every position, as Llama-style networks are built."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import NotApplicable
from netwright.models.parts.sizing import sized

Cache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class CausalTransformer:
    """Token ids (B, T) int64 -> logits of the next token (B, T, outputs).

    Pre-norm blocks (RMS) of causal attention with rotary positions (arXiv 2104.09864) and a SwiGLU feed-forward (arXiv
    2002.05202), none of them with a bias. width: hidden size, a multiple of twice the heads; hidden: of the
    feed-forward, default three times the width. vocabulary: number of ids. size chooses the width.
    One token at a time: `logits, cache = network.step(tokens, cache)` reads (B, 1) after what the cache holds.
    """

    vocabulary: int = 256
    width: int = 128
    depth: int = 4
    heads: int = 4
    hidden: int | None = None

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module:
        if len(shape) != 1:
            raise NotApplicable(f"a causal-transformer takes token ids (T,), not inputs of shape {shape}")
        make = lambda width: _CausalTransformer(self, classes, width)
        if size is None:
            return make(self.width)
        return sized(lambda w: make(2 * w * self.heads), size, "causal-transformer")


class CausalAttention(nn.Module):
    """(B, T, dim) -> (B, T, dim), and the keys and values (B, heads, past + T, dim / heads) that it attended to."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        split = lambda t: t.unflatten(2, (self.heads, -1)).transpose(1, 2)
        q, k, v = rotated(split(self.query(x)), turn), rotated(split(self.key(x)), turn), split(self.value(x))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        return self.out(mixed.transpose(1, 2).flatten(2)), (k, v)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.RMSNorm(dim), CausalAttention(dim, heads)
        self.norm2, self.feed = nn.RMSNorm(dim), SwiGLU(dim, hidden)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mixed, held = self.attention(self.norm1(x), turn, past)
        x = x + mixed
        return x + self.feed(self.norm2(x)), held


class _CausalTransformer(nn.Module):
    speeds: Tensor

    def __init__(self, plan: CausalTransformer, classes: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(plan.vocabulary, width)
        hidden = plan.hidden or 3 * width
        self.blocks = nn.ModuleList(_Block(width, plan.heads, hidden) for _ in range(plan.depth))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, classes, bias=False)
        half = width // plan.heads // 2
        self.register_buffer("speeds", 10_000.0 ** (-torch.arange(half) / half), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
        for block in self.blocks:  # what is added to the stream starts small, the smaller the deeper
            for layer in (block.attention.out, block.feed.down):  # type: ignore[union-attr]
                nn.init.normal_(layer.weight, std=0.02 / (2 * len(self.blocks)) ** 0.5)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        x, turn = self.token(tokens), self._turn(0, tokens.shape[1])
        for block in self.blocks:
            x, _ = block(x, turn)
        return self.head(self.norm(x))

    def step(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """tokens: (B, 1) after a cache, (B, T) without one. Logits (B, T, outputs), and the cache with them."""
        start = cache[0][0].shape[2] if cache else 0
        x, turn = self.token(tokens), self._turn(start, tokens.shape[1])
        held: Cache = []
        for i, block in enumerate(self.blocks):
            x, pair = block(x, turn, cache[i] if cache else None)
            held.append(pair)
        return self.head(self.norm(x)), held

    def _turn(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (count, dim / heads / 2) of the positions from `start` on."""
        places = torch.arange(start, start + count, device=self.speeds.device)
        angles = places[:, None].to(self.speeds.dtype) * self.speeds
        return angles.cos(), angles.sin()


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """x (B, heads, T, d): its first half against its second, as pairs, turned by the angles of their positions."""
    (cos, sin), (a, b) = turn, x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
