"""digits: 1,797 handwritten digits of 8x8 pixels, embedded in scikit-learn (UCI Optical Recognition)."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from netwright.core.division import cut, split_indices
from netwright.core.split import ArraySplit, Normalise
from netwright.core.task import Task


def load(seed: int = 0, limit: int | None = None) -> Task:
    """Images (1, 8, 8) uint8 of 0 to 16, ten classes; 60 % train, 20 % validation, 20 % test (no official split)."""
    held = load_digits()
    x = torch.from_numpy(held.images.astype("uint8"))[:, None]
    y = torch.from_numpy(held.target).long()
    train, val, test = split_indices(y, [0.2, 0.2], seed, stratify=True)
    normalise = Normalise([0.3053], [0.3761], scale=1 / 16)
    splits = [ArraySplit((x[i],), y[i], normalise) for i in (cut(train, seed, limit), val, test)]
    classes = tuple(str(d) for d in range(10))
    return Task("digits", "classification", *splits, 10, classes, "image", normalise, division="ours")
