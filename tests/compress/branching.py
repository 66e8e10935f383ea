"""Small networks that branch on their values, with weights that make them take every way."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EarlyExit(nn.Module):
    """Stops at the first of its heads that is sure enough."""

    def __init__(self, depth: int = 3, width: int = 8, threshold: float = 0.6) -> None:
        super().__init__()
        self.threshold = threshold
        self.stem = nn.Sequential(nn.Linear(6, width), nn.ReLU())
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.heads = nn.ModuleList(nn.Linear(width, 3) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for k, (block, head) in enumerate(zip(self.blocks, self.heads, strict=True)):
            x = torch.relu(block(x)) + x
            scores = 4 * head(x)
            if k == len(self.blocks) - 1 or scores.softmax(-1).amax() > self.threshold:
                return scores
        raise AssertionError("the last head always answers")


class Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> bool:
        return self.score(x).item() > 0


class Skipping(nn.Module):
    """Runs a layer where its gate says so; counts those that ran."""

    def __init__(self, depth: int = 3, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gates = nn.ModuleList(Gate(width) for _ in range(depth))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer, gate in zip(self.layers, self.gates, strict=True):
            if gate(x):
                identity = x
                x = layer(x)
                x += identity
                x = torch.relu(x)
        return self.head(x)


class Generating(nn.Module):
    """Writes one symbol after another until it writes the last one, or for so many turns."""

    def __init__(self, symbols: int = 7, width: int = 12, longest: int = 5) -> None:
        super().__init__()
        self.longest, self.end = longest, symbols - 1
        self.table = nn.Embedding(symbols, width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.head = nn.Linear(width, symbols)

    def forward(self, first: Tensor) -> tuple[Tensor, int]:
        written, state = first, torch.zeros(1, self.outer.in_features)
        length = 0
        for _ in range(self.longest):
            state = torch.tanh(3 * self.inner(self.table(written[:, -1])) + self.outer(state))
            symbol = self.head(state).argmax(-1)
            written = torch.cat([written, symbol[:, None]], 1)
            length += 1
            if symbol.item() == self.end:
                break
        return written, length
