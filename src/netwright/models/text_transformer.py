"""Small transformer encoder over token ids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netwright.core.errors import NotApplicable
from netwright.models.parts.sizing import sized
from netwright.models.parts.transformer import Block


@dataclass(frozen=True)
class TextTransformer:
    """Token ids (B, T) int64 -> (B, outputs): embedding, pre-norm blocks, mean over the tokens that count.

    vocabulary: number of ids; id 0 is padding and is neither attended to nor averaged.
    Hidden states (B, T, width) can be tapped at `embed` and `blocks.0`, `blocks.1`, ...
    width: hidden size, a multiple of heads. size chooses the width.
    """

    vocabulary: int = 8192
    width: int = 64
    depth: int = 4
    heads: int = 4
    dropout: float = 0.1

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module:
        if len(shape) != 1:
            raise NotApplicable(f"a text-transformer takes token ids (T,), not inputs of shape {shape}")
        make = lambda width: _TextTransformer(self, shape[0], classes, width)
        if size is None:
            return make(self.width)
        return sized(lambda w: make(w * self.heads), size, "text-transformer")


class _Embedding(nn.Module):
    """Token and position embedding, (B, T) -> (B, T, width)."""

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.empty(1, length, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.token.weight, std=0.1)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.token(tokens) + self.position[:, : tokens.shape[1]]


class _TextTransformer(nn.Module):
    def __init__(self, plan: TextTransformer, length: int, classes: int, width: int) -> None:
        super().__init__()
        self.embed = _Embedding(plan.vocabulary, length, width)
        self.blocks = nn.ModuleList(
            Block(width, plan.heads, 2 * width, plan.dropout) for _ in range(plan.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        # the first position always counts, so that a row of padding alone gives numbers
        counts = (tokens != 0) | (torch.arange(tokens.shape[1], device=tokens.device) == 0)
        mask = counts[:, None, None, :]
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mask)
        weight = counts.to(x.dtype)[:, :, None]
        return self.head((self.norm(x) * weight).sum(1) / weight.sum(1))
