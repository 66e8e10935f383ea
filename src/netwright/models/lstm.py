"""LSTM classifier."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from netwright.core.errors import NotApplicable
from netwright.models.parts.sizing import sized


@dataclass(frozen=True)
class LSTM:
    """Reads a sequence (B, T, F), or an image (B, C, H, W) row by row, and classifies its last state.

    width: hidden size. depth: layers. size chooses the width.
    """

    width: int = 64
    depth: int = 1

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module:
        if len(shape) not in (2, 3):
            raise NotApplicable(
                f"an lstm takes sequences (T, F) or images (C, H, W), not inputs of shape {shape}"
            )
        features = shape[1] if len(shape) == 2 else shape[0] * shape[2]
        make = lambda width: _LSTM(features, width, self.depth, classes, len(shape) == 3)
        return make(self.width) if size is None else sized(make, size, "lstm")


class _LSTM(nn.Module):
    def __init__(self, features: int, width: int, depth: int, classes: int, rows: bool) -> None:
        super().__init__()
        self.rows = rows
        self.lstm = nn.LSTM(features, width, depth, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.rows:
            x = x.transpose(1, 2).flatten(2)
        return self.head(self.lstm(x)[0][:, -1])
