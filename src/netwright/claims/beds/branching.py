"""Networks that branch on their values, trained for a moment on Fashion-MNIST: early exits, skipped blocks, and one
that writes the name of what it sees, letter by letter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.claims.clock import uncounted
from netwright.core.fit import Fit
from netwright.core.network import Inputs, as_tuple, seeded
from netwright.core.task import Task

EXAMPLES = 2000
SURE = 0.7


def step(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU())


class ShallowDeep(nn.Module):
    """Six convolutions; stops at the first of three classifiers that is sure."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (24, 32, 64)
        pairs = [nn.Sequential(step(b, a, 2), step(a, a)) for b, a in zip((1, 24, 32), widths, strict=True)]
        self.stages = nn.ModuleList(pairs)
        self.heads = nn.ModuleList(nn.Linear(a, classes) for a in widths)

    def forward(self, x: Tensor) -> Tensor:
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            scores = head(x.mean((2, 3)))
            if scores.softmax(1).amax() > SURE:
                break
        return scores

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Every classifier's, with equal weights."""
        losses = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            losses.append(F.cross_entropy(head(x.mean((2, 3))), y))
        return torch.stack(losses).mean()


class Skip(nn.Module):
    """Residual blocks, each behind a gate that looks at the channels' means."""

    def __init__(self, classes: int, blocks: int = 4, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(step(1, width, 2), step(width, width, 2))
        self.blocks = nn.ModuleList(
            nn.Sequential(step(width, width), step(width, width)) for _ in range(blocks)
        )
        self.gates = nn.ModuleList(nn.Linear(width, 1) for _ in range(blocks))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, gate in zip(self.blocks, self.gates, strict=True):
            if gate(x.mean((2, 3))).item() > 0:
                x = x + block(x)
        return self.head(x.mean((2, 3)))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Gates by straight-through; each is asked to be open for half of the examples."""
        x, uneven = self.stem(x), torch.zeros(())
        for block, gate in zip(self.blocks, self.gates, strict=True):
            score = gate(x.mean((2, 3)))
            soft = score.sigmoid()
            opened = (score > 0).float() + soft - soft.detach()
            uneven = uneven + (soft.mean() - 0.5).square()
            x = x + opened[:, :, None, None] * block(x)
        return F.cross_entropy(self.head(x.mean((2, 3))), y) + 4 * uneven


class Writer(nn.Module):
    """Sees a picture and writes the name of its class, greedily, until it writes the end.

    names: of the classes; letters are numbered from 1, 0 is the end.
    """

    def __init__(self, names: tuple[str, ...], width: int = 64) -> None:
        super().__init__()
        letters = sorted(set("".join(names)))
        self.spelled = [[1 + letters.index(c) for c in name] + [0] for name in names]
        self.longest = max(map(len, self.spelled)) + 1
        self.eye = nn.Sequential(step(1, 16, 2), step(16, 32, 2), step(32, width, 2))
        self.table = nn.Embedding(len(letters) + 1, width)
        self.cell = nn.GRUCell(width, width)
        self.head = nn.Linear(width, len(letters) + 1)

    def forward(self, x: Tensor) -> Tensor:
        state = self.eye(x).mean((2, 3))
        letter = torch.zeros(1, dtype=torch.int64)
        written = []
        for _ in range(self.longest):
            state = self.cell(self.table(letter), state)
            letter = self.head(state).argmax(1)
            written.append(letter)
            if letter == 0:
                break
        return torch.cat(written)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the next letter, given the right ones before it."""
        padded = [letters + [-100] * (self.longest - len(letters)) for letters in self.spelled]
        wanted = torch.tensor(padded)[y]  # (B, longest)
        state = self.eye(x).mean((2, 3))
        letter, scores = torch.zeros(len(y), dtype=torch.int64), []
        for place in range(self.longest):
            state = self.cell(self.table(letter), state)
            scores.append(self.head(state))
            letter = wanted[:, place].clamp_min(0)
        return F.cross_entropy(torch.stack(scores, 2), wanted)


NETWORKS = ("early exit", "skipping", "generating")


def branching(name: str, seed: int) -> tuple[nn.Module, Task]:
    """One of NETWORKS, trained from this seed."""
    from netwright.data import task as open_task

    task = open_task("fashion-mnist", limit=EXAMPLES)
    with seeded(seed):
        network: nn.Module
        if name == "early exit":
            network = ShallowDeep(task.outputs)
        elif name == "skipping":
            network = Skip(task.outputs)
        else:
            network = Writer(tuple(task.classes))
    with uncounted():
        Fit(epochs=5, batch_size=64, lr=4e-3, augment=False, seed=seed)(network, task, loss=_loss)
    return network.eval(), task


def _loss(network: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
    return network.loss(as_tuple(inputs)[0], targets)  # type: ignore[operator, no-any-return]
