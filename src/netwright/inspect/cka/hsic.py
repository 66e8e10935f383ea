"""Two ways to accumulate the linear HSIC of all pairs of layers in memory that does not grow with the data.

estimate.start(layers)
for each batch:  estimate.see(i, activations (B, d_i)) for each layer i, then estimate.close_batch()
estimate.hsic()  # (layers, layers), up to a factor that CKA does not see; None if nothing could be used
"""

from __future__ import annotations

import torch
from torch import Tensor


class Exact:
    """||Cov(X_i, X_j)||_F^2 from the second moments of all features, in double precision."""

    def __init__(self) -> None:
        self.count = 0
        self.shift: Tensor | None = None

    def start(self, layers: int) -> None:
        self.batch: list[Tensor | None] = [None] * layers

    def see(self, layer: int, activations: Tensor) -> None:
        # a copy: the next layer may work in place
        self.batch[layer] = activations.to(torch.float64, copy=True)

    def close_batch(self) -> None:
        parts = [part for part in self.batch if part is not None]
        together = torch.cat([part.to(parts[0].device) for part in parts], 1)
        if self.shift is None:
            # near the mean, so that the moments do not cancel
            self.widths = [part.shape[1] for part in parts]
            self.shift = together.mean(0)
            self.sum = torch.zeros_like(self.shift)
            self.moment = self.shift.new_zeros(len(self.shift), len(self.shift))
        together = together - self.shift
        self.sum += together.sum(0)
        self.moment += together.T @ together
        self.count += together.shape[0]
        self.batch = [None] * len(self.batch)

    def hsic(self) -> Tensor | None:
        if self.count < 4:
            return None
        covariance = self.moment - torch.outer(self.sum, self.sum) / self.count
        blocks = [row.split(self.widths, 1) for row in covariance.split(self.widths)]
        result = torch.stack([torch.stack([block.pow(2).sum() for block in row]) for row in blocks])
        seen = torch.stack([b.pow(2).sum() for b in self.moment.diagonal().split(self.widths)])
        return without_dead(result, 1e-20 * seen)


class Minibatch:
    """The unbiased HSIC_1 (Song et al. 2012) of groups of n examples, summed over groups.

    With U-centred Gram matrices it is the inner product over pairs i != j, divided by n (n - 3); each group
    weighs by its examples, the last of a batch may be smaller, and one of fewer than 4 is left out.
    """

    def __init__(self, group: int) -> None:
        self.group = group
        self.total: Tensor | None = None

    def start(self, layers: int) -> None:
        self.grams: list[list[Tensor]] = [[] for _ in range(layers)]

    def see(self, layer: int, activations: Tensor) -> None:
        """activations: (B, d). Keeps Gram matrices (groups, n, n) only."""
        x = activations.float()
        whole = x.shape[0] // self.group * self.group
        kept = []
        if whole:
            groups = x[:whole].view(-1, self.group, x.shape[1])
            kept.append(torch.bmm(groups, groups.transpose(1, 2)))
        if x.shape[0] - whole >= 4:
            kept.append((x[whole:] @ x[whole:].T)[None])
        self.grams[layer] = kept

    def close_batch(self) -> None:
        for parts in zip(*self.grams, strict=True):
            n = parts[0].shape[-1]
            grams = torch.stack([part.to(parts[0].device) for part in parts]).double()
            flat = u_centred(grams).flatten(1)
            # a group of n has n / (n (n - 3)) times the inner product
            hsic, seen = flat @ flat.T / (n - 3), grams.flatten(1).pow(2).sum(1) / (n - 3)
            first = self.total is None
            self.total, self.seen = (hsic, seen) if first else (self.total + hsic, self.seen + seen)
        self.grams = [[] for _ in self.grams]

    def hsic(self) -> Tensor | None:
        return None if self.total is None else without_dead(self.total, 1e-12 * self.seen)


def without_dead(hsic: Tensor, floor: Tensor) -> Tensor:
    """Rounding leaves a layer that never changes a trace of variance; its row and column become 0."""
    alive = (hsic.diagonal() > floor).to(hsic)
    return hsic * alive[:, None] * alive[None]


def u_centred(grams: Tensor) -> Tensor:
    """Gram matrices (..., n, n) with zero diagonal, U-centred: rows and columns sum to 0 without the diagonal.

    What rows or columns have in common, the mean of the features too, drops out.
    """
    n = grams.shape[-1]
    off = grams - torch.diag_embed(grams.diagonal(dim1=-2, dim2=-1))
    rows = off.sum(-1, keepdim=True) / (n - 2)
    whole = off.sum((-2, -1), keepdim=True) / ((n - 1) * (n - 2))
    centred = off - rows - rows.transpose(-2, -1) + whole
    return centred - torch.diag_embed(centred.diagonal(dim1=-2, dim2=-1))
