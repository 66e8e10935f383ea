"""Mutual information of units, from two-dimensional histograms of their activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 4096


def binned(values: Tensor, bins: int = 10) -> Tensor:
    """Bin numbers (n, C) of activations (n, C): 0 for exact zeros, then `bins` of equal mass for the rest.

    Ties stay together, so that a unit with few values has few bins.
    """
    codes = torch.zeros_like(values, dtype=torch.long)
    levels = torch.arange(1, bins, dtype=torch.float64) / bins
    for c in range(values.shape[1]):
        column = values[:, c].double()
        live = column != 0
        if live.any():
            edges = torch.quantile(column[live], levels)
            codes[live, c] = 1 + torch.bucketize(column[live], edges)
    return codes


def mutual_information(first: Tensor, second: Tensor, bins: int) -> Tensor:
    """Nats (A, B) between all pairs of units, from bin numbers (n, A) and (n, B) in 0..bins.

    Plug-in estimate less its bias (I - 1)(J - 1) / 2n, I and J the bins that hold something.
    """
    n, size = first.shape[0], bins + 1
    counts = torch.zeros(first.shape[1] * size, second.shape[1] * size, dtype=torch.float64)
    for a, b in zip(first.split(CHUNK), second.split(CHUNK), strict=True):
        counts += (_one_hot(a, size).T @ _one_hot(b, size)).double()
    joint = counts.view(first.shape[1], size, second.shape[1], size).permute(0, 2, 1, 3) / n
    entropy = lambda p: torch.special.entr(p).flatten(2).sum(2)
    left, right = joint.sum(3), joint.sum(2)
    information = entropy(left) + entropy(right) - entropy(joint)
    used = lambda p: (p > 0).sum(2).double()
    return information - (used(left) - 1) * (used(right) - 1) / (2 * n)


def _one_hot(codes: Tensor, size: int) -> Tensor:
    """(n, C) -> (n, C * size), single precision: counts of a chunk are exact."""
    return F.one_hot(codes, size).flatten(1).float()
