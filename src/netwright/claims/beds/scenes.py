"""Cluttered Fashion-MNIST: 64x64 scenes of one to three articles of one class, with exact boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from netwright.core.split import ArraySplit
from netwright.data import task

SIDE, CELL, PATCH, PATCHES = 64, 32, 8, 12


@dataclass(frozen=True)
class Scenes:
    """pictures: (N, 1, 64, 64) uint8. targets: (N,). inside: (N, 64, 64), true in the objects' boxes. objects: (N,)."""

    pictures: Tensor
    targets: Tensor
    inside: Tensor
    objects: Tensor


def scenes(role: str, count: int, seed: int) -> Scenes:
    """Each scene: twelve patches of 8x8 pixels cut from articles of other classes, then one to three articles of
    its class, each at a random place in a quarter of its own. Role 'train' and 'test' share no article.
    """
    source = getattr(task("fashion-mnist"), role)
    assert isinstance(source, ArraySplit)
    articles, labels = source.inputs[0].view(-1, 28, 28), source.targets
    random = torch.Generator().manual_seed(seed)
    draw = lambda high: int(torch.randint(high, (1,), generator=random))
    of_class = [torch.nonzero(labels == c)[:, 0] for c in range(10)]
    pictures = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.uint8)
    inside = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    targets, objects = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)
    for n in range(count):
        targets[n], objects[n] = draw(10), 1 + draw(3)
        for _ in range(PATCHES):
            other = of_class[(int(targets[n]) + 1 + draw(9)) % 10]
            article = articles[other[draw(len(other))]]
            y, x = 4 + draw(28 - PATCH - 8), 4 + draw(28 - PATCH - 8)
            top, left = draw(SIDE - PATCH), draw(SIDE - PATCH)
            pictures[n, 0, top : top + PATCH, left : left + PATCH] = article[y : y + PATCH, x : x + PATCH]
        own = of_class[int(targets[n])]
        for cell in torch.randperm(4, generator=random)[: objects[n]].tolist():
            article = articles[own[draw(len(own))]]
            top, left = CELL * (cell // 2) + draw(CELL - 27), CELL * (cell % 2) + draw(CELL - 27)
            _paste(pictures[n, 0], inside[n], article, top, left)
    return Scenes(pictures, targets, inside, objects)


def _paste(picture: Tensor, inside: Tensor, article: Tensor, top: int, left: int) -> None:
    """Draw the article over what is there; its box is that of its pixels."""
    rows, columns = torch.nonzero(article.any(1))[:, 0], torch.nonzero(article.any(0))[:, 0]
    place = picture[top : top + 28, left : left + 28]
    place[article > 0] = article[article > 0]
    box = inside[top : top + 28, left : left + 28]
    box[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1] = True
