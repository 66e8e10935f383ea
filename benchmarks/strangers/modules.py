"""The strangers' networks, as their owners would write them: plain torch modules, one function each.

This file is also given to netwright as it is, as code with a file of weights ('net.py:vit').
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Shifted(nn.Module):
    """A network with its own normalisation in front: (x - mean) / std."""

    def __init__(self, inner: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x - self.mean) / self.std)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean((2, 3), keepdim=True)
        return x * self.up(self.down(s).relu()).sigmoid()


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.inner(x)).relu()


class Dense(nn.Module):
    """A layer of DenseNet: its outputs are joined to its inputs."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, growth, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.inner(x)], 1)


def conv(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def head(width: int, outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))


def cnn() -> nn.Module:
    return nn.Sequential(conv(1, 16, 2), conv(16, 32, 2), conv(32, 48), head(48))


def separable() -> nn.Module:
    """Depthwise-separable, with squeeze and excitation."""
    layers: list[nn.Module] = [conv(1, 16, 2)]
    for a, b, stride in ((16, 24, 1), (24, 32, 2), (32, 48, 1)):
        layers += [conv(a, a, stride, groups=a), SqueezeExcite(a)]
        layers += [nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b), nn.Hardswish()]
    return nn.Sequential(*layers, head(48))


def residual() -> nn.Module:
    def block(width: int) -> nn.Module:
        return Residual(
            nn.Sequential(conv(width, width), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        )

    return nn.Sequential(conv(1, 16, 2), block(16), conv(16, 32, 2), block(32), head(32))


def densenet(colours: int = 1) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(colours, 16, 3, 2, 1)]
    layers += [Dense(16 + 8 * i, 8) for i in range(3)]
    layers += [nn.Conv2d(40, 24, 1), nn.AvgPool2d(2)]
    layers += [Dense(24 + 8 * i, 8) for i in range(3)]
    return nn.Sequential(*layers, nn.BatchNorm2d(48), nn.ReLU(), head(48))


def colour_densenet() -> nn.Module:
    return densenet(3)


def colour_cnn() -> nn.Module:
    return nn.Sequential(conv(3, 16, 2), conv(16, 32), conv(32, 48, 2), head(48))


class Vit(nn.Module):
    """A small vision transformer over patches of 7 x 7."""

    def __init__(self, width: int = 48, depth: int = 2, outputs: int = 10) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 7, 7)
        self.place = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 96, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.blocks(tokens).mean(1))


def vit() -> nn.Module:
    return Vit()


class TextCnn(nn.Module):
    def __init__(self, words: int = 3000, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width, padding_idx=0)
        self.convs = nn.ModuleList([nn.Conv1d(width, 24, k, padding=k // 2) for k in (3, 5)])
        self.head = nn.Linear(48, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids).transpose(1, 2)
        return self.head(torch.cat([c(x).relu().amax(2) for c in self.convs], 1))


def text_cnn() -> nn.Module:
    return TextCnn()


class Recurrent(nn.Module):
    """The last state of an LSTM or GRU, over vectors or (words given) embedded tokens."""

    def __init__(self, cell: str, inputs: int, width: int, outputs: int, words: int = 0) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, inputs) if words else nn.Identity()
        self.cell = getattr(nn, cell)(inputs, width, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(self.embed(x))[0][:, -1])


def wave_lstm() -> nn.Module:
    return Recurrent("LSTM", 3, 32, 4)


def wave_gru() -> nn.Module:
    return Recurrent("GRU", 3, 24, 3)


def text_gru() -> nn.Module:
    return Recurrent("GRU", 24, 24, 2, words=3000)


def mlp(inputs: int, outputs: int, width: int = 64) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def flat_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), mlp(784, 10, 128))


class TwoSided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 48), nn.Linear(6, 48)
        self.head = mlp(96, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(torch.cat([self.a(left).relu(), self.b(right).relu()], 1))


def two_sided() -> nn.Module:
    return TwoSided()
