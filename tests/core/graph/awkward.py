"""Networks whose structure makes pruning hard, one idea each; every activation function maps 0 to 0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.a, self.norm_a = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.b = nn.Conv2d(12, 8, 3, padding=1)
        self.fc, self.head = nn.Linear(8 * 16, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        x = F.relu(x + self.b(F.relu(self.norm_a(self.a(x)))))
        return self.head(F.relu(self.fc(F.max_pool2d(x, 2).flatten(1))))


class ConcatSplit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.join, self.norm = nn.Conv2d(10, 12, 1), nn.BatchNorm2d(10)
        self.head = nn.Linear(10, 3)
        self.big, self.small = nn.Conv2d(8, 5, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.join(F.relu(self.norm(torch.cat([self.a(x), self.b(x)], 1))))
        u, v = y.split([8, 4], 1)
        y = torch.cat([F.relu(self.big(u)), torch.tanh(self.small(v))], 1)
        return self.head(y.mean((2, 3)))


class Gated(nn.Module):
    """A split in halves that are multiplied, and squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(8, 3)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.a(x).chunk(2, 1)
        y = u * torch.sigmoid(v)
        y = y * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1)))))
        return self.head(y.mean((2, 3)))


class Separable(nn.Module):
    """Depthwise (with multiplier 2 too), grouped, transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise, self.norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.twofold = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(16, 12, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.depthwise(F.relu(self.stem(x)))))
        x = F.relu(self.grouped(F.relu(self.twofold(x))))
        return self.head(self.up(x).amax((2, 3)))


class Shared(nn.Module):
    """One convolution that runs twice, two linear layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(6, 8)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(F.relu(self.twice(F.relu(self.stem(x))))).mean((2, 3))
        return self.head(F.relu(self.first(x)) + F.relu(self.second(x)))


class Attention(nn.Module):
    """Hand-written: qkv in one layer, chunk, view; position and class tokens. Without layer norm."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.fused = fused
        self.embed, self.place = nn.Linear(5, 16), nn.Parameter(torch.randn(1, 7, 16))
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.qkv, self.out = nn.Linear(16, 3 * 12), nn.Linear(12, 16)
        self.up, self.down, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        x = torch.cat([self.token.expand(b, -1, -1), self.embed(x)], 1) + self.place
        q, k, v = (t.view(b, 7, 3, 4).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(b, 7, 12))
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(x[:, 0])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], layers: int, both: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.rnn = kind(8, 6, num_layers=layers, bidirectional=both, batch_first=True)
        self.head = nn.Linear(12 if both else 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(x))[0][:, -1])


class LastState(nn.Module):
    """The hidden state instead of the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[1][0][-1])


class TwoInTwoOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.table = nn.Conv2d(3, 6, 3), nn.Linear(5, 4)
        self.body, self.values, self.aside = nn.Linear(6 * 36 + 4, 8), nn.Linear(8, 3), nn.Linear(8, 8)

    def forward(self, image: Tensor, table: Tensor) -> dict[str, Tensor]:
        y = torch.cat([F.relu(self.image(image)).flatten(1), F.relu(self.table(table))], 1)
        y = F.relu(self.body(y))
        return {"values": self.values(y), "aside": self.aside(y)}


class Shuffled(nn.Module):
    """ShuffleNet's way: half passes by, channels are shuffled; then pixels are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.up, self.head = nn.Conv2d(4, 6, 1), nn.Linear(6, 3)

    def unit(self, x: Tensor, layer: nn.Module) -> Tensor:
        u, v = x.chunk(2, 1)
        y = torch.cat([u, F.relu(layer(v))], 1)
        b, c, h, w = y.shape
        return y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)

    def forward(self, x: Tensor) -> Tensor:
        y = self.unit(self.unit(self.stem(x), self.a), self.b)
        return self.head(self.up(F.pixel_shuffle(y, 2)).mean((2, 3)))


class PaddedShortcut(nn.Module):
    """A shortcut that subsamples and pads channels with zeros (option A of the ResNet paper)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(F.relu(self.b(x) + short).mean((2, 3)))


class Baked(nn.Module):
    """Sizes written into the forward, weights as bare parameters, batch norm and dropout as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3) / 5)
        self.weight, self.bias = nn.Parameter(torch.randn(8 * 64, 6) / 20), nn.Parameter(torch.randn(6))
        self.gain, self.shift = nn.Parameter(torch.rand(8) + 0.5), nn.Parameter(torch.randn(8))
        self.register_buffer("mean", torch.randn(8))
        self.register_buffer("var", torch.rand(8) + 0.5)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel, padding=1)
        x = F.batch_norm(x, self.mean, self.var, self.gain, self.shift, self.training)
        x = F.dropout(F.relu(x), 0.5, self.training).reshape(-1, 512)
        return self.head(F.relu(x @ self.weight + self.bias))


IMAGE, TOKENS, WORDS = (2, 3, 8, 8), (2, 6, 5), (2, 4)
EXACT = {
    "residual": (Residual, IMAGE), "concat-split": (ConcatSplit, IMAGE), "gated": (Gated, IMAGE),
    "separable": (Separable, IMAGE), "shared": (Shared, IMAGE), "attention": (Attention, TOKENS),
    "attention-by-hand": (lambda: Attention(fused=False), TOKENS),
    "lstm": (lambda: Recurrent(nn.LSTM, 1, False), WORDS), "gru": (lambda: Recurrent(nn.GRU, 2, False), WORDS),
    "lstm-both": (lambda: Recurrent(nn.LSTM, 2, True), WORDS),
    "rnn-both": (lambda: Recurrent(nn.RNN, 1, True), WORDS), "last-state": (LastState, TOKENS),
    "two-in-two-out": (TwoInTwoOut, (IMAGE, (2, 5))), "shuffled": (Shuffled, IMAGE),
    "padded-shortcut": (PaddedShortcut, IMAGE), "baked": (Baked, IMAGE),
}  # fmt: skip


def make(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network in evaluation mode, its batch statistics no longer trivial, and an example."""
    build, shapes = EXACT[name]
    network = build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    several = shapes if isinstance(shapes[0], tuple) else (shapes,)
    example = tuple(torch.randint(0, 11, s) if s == WORDS else torch.randn(s) for s in several)
    return network.eval(), example
