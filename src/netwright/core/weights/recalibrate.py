"""Batch-norm statistics measured anew: what a network needs whose layers or weights have just changed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from netwright.core.network import batch_size, call, device_of, evaluating, move
from netwright.core.split import Split


def recalibrate(network: nn.Module, split: Split, samples: int = 512, batch: int = 128, seed: int = 0) -> int:
    """Replace the running means and variances by those of `samples` examples, in place; how many were passed.

    The statistics are plain averages over batches, drawn in a seeded random order. Everything but batch norm runs in
    evaluation mode, and weights stay as they are. A network without batch norm is left alone (0 examples).
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    before = [norm.momentum for norm in norms]
    device, seen = device_of(network), 0
    with evaluating(network), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
            norm.train()
        for inputs, _ in split.batches(batch, shuffle=True, seed=seed):
            if seen and (seen >= samples or batch_size(inputs) < 2):
                break
            call(network, move(inputs, device))
            seen += batch_size(inputs)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return seen
