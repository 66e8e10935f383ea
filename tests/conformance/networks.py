"""Awkward networks, each with a tiny task that it can learn: what every method must serve or refuse.

    network, task = subject("attention")

A subject is trained for a moment, so that its weights and batch statistics mean something; each call gives a copy.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from netwright.core.fit import Fit
from netwright.core.network import seeded
from netwright.core.task import Task
from netwright.models import build

CLASSES = 3
IMAGE = (2, 8, 8)


class Separable(nn.Module):
    """Depthwise and grouped convolutions, batch norm between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.norm1 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.pointwise, self.norm2 = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.grouped, self.norm3 = nn.Conv2d(16, 16, 3, 2, 1, groups=4, bias=False), nn.BatchNorm2d(16)
        self.multiplied = nn.Conv2d(16, 32, 3, padding=1, groups=16)  # two outputs for each input channel
        self.relu, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm0(self.stem(x)))
        x = self.relu(self.norm1(self.depthwise(x)))
        x = self.relu(self.norm2(self.pointwise(x)))
        x = self.relu(self.norm3(self.grouped(x)))
        return self.head(self.pool(self.relu(self.multiplied(x))).flatten(1))


class Concatenating(nn.Module):
    """Two branches side by side, the input beside them, then a split in halves that are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(2, 4, 5, padding=2)
        self.norm = nn.BatchNorm2d(12)
        self.join = nn.Conv2d(12, 16, 3, 2, 1)
        self.last = nn.Conv2d(8, 10, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(10 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.relu(self.left(x)), self.relu(self.right(x)), x], 1)
        a, b = self.join(self.norm(x)).chunk(2, 1)
        return self.head(self.relu(self.last(self.relu(a) * torch.sigmoid(b))).flatten(1))


class Shared(nn.Module):
    """One convolution that runs twice, and two layers that hold the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.down = nn.MaxPool2d(2)
        self.first, self.second = nn.Linear(8 * 16, 12), nn.Linear(8 * 16, 12)
        self.second.weight = self.first.weight
        self.relu = nn.ReLU()
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.twice(self.relu(self.stem(x))))
        x = self.down(self.relu(self.twice(x))).flatten(1)
        return self.head(self.relu(self.first(x)) + self.relu(self.second(x)))


class Gated(nn.Module):
    """Gated feed-forwards over a sequence: gate and up projection as two layers, then as halves of one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(5, 12), nn.LayerNorm(12)
        self.gate, self.up, self.down = nn.Linear(12, 20), nn.Linear(12, 20), nn.Linear(20, 12)
        self.both, self.out = nn.Linear(12, 32), nn.Linear(16, 12)
        self.silu, self.gelu = nn.SiLU(), nn.GELU()
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.norm(x)
        x = x + self.down(self.silu(self.gate(y)) * self.up(y))
        value, gate = self.both(x).chunk(2, -1)
        return self.head((x + self.out(value * self.gelu(gate))).mean(1))


class TwoInputs(nn.Module):
    """An image and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.table = nn.Linear(4, 6)
        self.relu = nn.ReLU()
        self.head = nn.Linear(8 * 16 + 6, CLASSES)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        image = self.relu(self.norm(self.conv(image))).flatten(1)
        return self.head(torch.cat([image, self.relu(self.table(vector))], 1))


class Bare(nn.Module):
    """Convolutions without batch norm, flattened into linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.hidden, self.relu = nn.Linear(8 * 16, 16), nn.ReLU()
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.head(self.relu(self.hidden(x.flatten(1))))


class Slow(Bare):
    """A pass that takes its time, whatever the batch."""

    def forward(self, x: Tensor) -> Tensor:
        burn(PASS)
        return super().forward(x)


PASS = 0.15  # seconds of the processor


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def _examples(shape: tuple[int, ...], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """A prototype per class under noise: easy, yet no network gets it for nothing."""
    draw = torch.Generator().manual_seed(99)
    prototypes = torch.randn(CLASSES, *shape, generator=draw)
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    return prototypes[y] + 1.5 * torch.randn(count, *shape, generator=draw), y


def _task(name: str, *shapes: tuple[int, ...]) -> Task:
    parts = []
    for count, seed in ((144, 1), (96, 2), (96, 3)):
        drawn = [_examples(shape, count, seed + 10 * i) for i, shape in enumerate(shapes)]
        parts.append((tuple(x for x, _ in drawn), drawn[0][1]))
    (x, y), val, test = parts
    meaning = "image" if len(shapes[0]) == 3 else "sequence"
    return Task.from_arrays(x, y, val=val, test=test, name=f"awkward-{name}", meaning=meaning)


_MAKE: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "residual": (lambda: build("resnet", IMAGE, CLASSES, depth=8, width=4), (IMAGE,)),
    "depthwise": (Separable, (IMAGE,)),
    "concatenation": (Concatenating, (IMAGE,)),
    "shared": (Shared, (IMAGE,)),
    "attention": (lambda: build("vit", IMAGE, CLASSES, width=16, depth=2, heads=2), (IMAGE,)),
    "gated": (Gated, ((6, 5),)),
    "lstm": (lambda: build("lstm", (6, 5), CLASSES, width=12), ((6, 5),)),
    "two-inputs": (TwoInputs, (IMAGE, (4,))),
    "bare": (Bare, (IMAGE,)),
}
NETWORKS = tuple(_MAKE)


@cache
def _trained(name: str, seed: int) -> tuple[nn.Module, Task]:
    make, shapes = _MAKE[name]
    task = _task(name, *shapes)
    with seeded(seed):
        network = make()
    Fit(epochs=4, batch_size=16, lr=5e-3, seed=seed)(network, task)
    return network.eval(), task


def subject(name: str, seed: int = 0) -> tuple[nn.Module, Task]:
    """A fresh copy of the network trained from this seed, in evaluation mode, and its task."""
    network, task = _trained(name, seed)
    return copy.deepcopy(network), task


def slow_subject(seed: int = 0) -> tuple[nn.Module, Task]:
    """The bare network, its weights in one whose passes are slow."""
    bare, task = _trained("bare", seed)
    network = Slow()
    network.load_state_dict(bare.state_dict())
    return network.eval(), task
