"""Moving Fashion-MNIST: clips of an article that wanders over a background that stays, made exactly."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.split import ArraySplit
from netwright.core.task import Task
from netwright.data import task as named_task
from netwright.models import build

SIDE, LENGTH = 28, 10
TRAIN, VAL, TEST = 1000, 400, 400
STILLS = 8000  # clips of one frame


class Averaged(nn.Module):
    """A network of pictures on clips (B, T, C, H, W): the mean of its outputs over the frames."""

    def __init__(self, frames: nn.Module) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        return self.frames(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1])).mean(1)


def clips(role: str, count: int, seed: int, length: int = LENGTH) -> tuple[Tensor, Tensor]:
    """(N, T, 1, 28, 28) from 0 to 1, and classes (N,).

    An article brought to 14x14 pixels starts anywhere and moves by -2 to 2 whole pixels a frame along each axis, not
    standing still, turning at the border; in front of a smooth random background, whose pixels stay what they are to
    the bit. Role 'train' and 'test' share no article.
    """
    source = getattr(named_task("fashion-mnist"), role)
    assert isinstance(source, ArraySplit)
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(source), generator=draw)[:count]
    articles = F.avg_pool2d(source.inputs[0].view(-1, 1, 28, 28)[chosen].float() / 255, 2)[:, 0]
    coarse = torch.rand(count, 1, 7, 7, generator=draw)
    behind = 0.4 * F.interpolate(coarse, SIDE, mode="bilinear", align_corners=False)
    frames = behind[:, None].repeat(1, length, 1, 1, 1)
    room = SIDE - articles.shape[-1]
    at = torch.randint(0, room + 1, (count, 2), generator=draw)
    speed = torch.randint(-2, 3, (count, 2), generator=draw)
    speed[(speed == 0).all(1), 0] = 1
    for n in range(count):
        (y, x), (dy, dx) = at[n].tolist(), speed[n].tolist()
        front = articles[n]
        for t in range(length):
            part = frames[n, t, 0, y : y + 14, x : x + 14]
            part.copy_(torch.where(front > 0.1, front, part))
            dy, dx = (-d if not 0 <= p + d <= room else d for p, d in ((y, dy), (x, dx)))
            y, x = y + dy, x + dx
    return frames, source.targets[chosen]


@cache
def moving() -> Task:
    x, y = clips("train", TRAIN + VAL, 1)
    return Task.from_arrays(
        x[:TRAIN],
        y[:TRAIN],
        val=(x[TRAIN:], y[TRAIN:]),
        test=clips("test", TEST, 2),
        name="moving",
        meaning="other",
    )


@cache
def stills() -> Task:
    """The same validation and test clips, and many clips of one frame to train on: what a network learns to recognise
    articles from at a tenth of the work."""
    x, y = clips("train", STILLS, 3, length=1)
    whole = moving()
    return replace(whole, train=ArraySplit((x,), y))


def network() -> Averaged:
    """A CNN of three stages with new weights."""
    return Averaged(build("cnn", (1, SIDE, SIDE), 10, widths=(16, 32, 64)))
