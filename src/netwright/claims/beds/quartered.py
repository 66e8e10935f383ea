"""Fashion-MNIST at 14 x 14, the mean of every four pixels: a bed for claims that train many networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from netwright.core.split import take
from netwright.core.task import Task
from netwright.data import task as named_task


def quartered(train: int, test: int, seed: int) -> Task:
    """train, test: how many images, drawn by the seed; validation has as many as test."""
    large, parts = named_task("fashion-mnist"), {}
    for role, count in (("train", train), ("val", test), ("test", test)):
        batches = list(take(getattr(large, role), count, seed).batches(1000))
        parts[role] = torch.cat([F.avg_pool2d(x, 2) for x, _ in batches]), torch.cat([y for _, y in batches])
    (x, y), val, test_ = parts["train"], parts["val"], parts["test"]
    return Task.from_arrays(x, y, val=val, test=test_, name="fashion-mnist-14", meaning="image")
