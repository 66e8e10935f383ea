"""LightGCN: a recommender of linear neighbour averaging over the user-item graph.

He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", arXiv 2002.02126.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.network import seeded
from netwright.domains.graphs.parts.bpr import Triples, bpr_loss, train
from netwright.domains.graphs.parts.interactions import check
from netwright.domains.graphs.parts.propagation import Normalisation, Propagation, adjacency
from netwright.domains.graphs.parts.recommender import Recommender


@dataclass(repr=False, eq=False)
class LightGCN(Recommender):
    """Embeddings (users + items, dim), averaged over `layers` rounds of neighbour averaging, trained by BPR.

    The only parameters are the layer-0 embeddings, drawn from N(0, 0.1^2); the score of a pair is the dot product
    of final embeddings. Each step propagates over the full graph. `l2` weighs half the squared norms of the batch's
    layer-0 rows, over the batch size; it is no weight decay. layers=0 is matrix factorisation by BPR.

    combine: 'mean' of layers 0 .. L, or the 'last' one alone; normalisation: 'symmetric' or 'left' (both for the
    paper's ablations). Optimiser Adam. Where we differ: nothing in what is computed; each step multiplies only by
    the rows of the adjacency that the batch asks for where it can (see propagation.py), equal to the dense way to
    rounding. The paper trains 1000 epochs.

    After `fit`: `embeddings_` (users + items, dim), final; `weight_` (users + items, dim), layer 0; `losses_` per
    epoch; `interactions_`.
    """

    dim: int = 64
    layers: int = 3
    lr: float = 1e-3
    l2: float = 1e-4
    batch_size: int = 2048
    epochs: int = 1000
    combine: Literal["mean", "last"] = "mean"
    normalisation: Normalisation = "symmetric"
    device: str = "cpu"
    seed: int = 0

    def fit(
        self,
        X: sparse.csr_array,
        y: None = None,
        *,
        budget: Budget | None = None,
        on_epoch: Callable[[int, LightGCN], None] | None = None,
    ) -> LightGCN:
        """Train on interactions (users, items). on_epoch hears (epochs done, self), with `embeddings_` up to date."""
        self.interactions_ = check(X)
        step = _Step(self, self.interactions_)

        def finished(epoch: int, loss: float) -> None:
            self.embeddings_ = step.final()
            on_epoch(epoch, self)  # type: ignore[misc]

        self.losses_ = train(
            self.interactions_, step, epochs=self.epochs, batch_size=self.batch_size, seed=self.seed,
            budget=budget, on_epoch=finished if on_epoch else None,
        )  # fmt: skip
        self.weight_, self.embeddings_ = step.weight.detach(), step.final()
        return self

    def scores(self, users: np.ndarray) -> Tensor:
        n_users = self.interactions_.shape[0]
        return self.embeddings_[torch.from_numpy(users)] @ self.embeddings_[n_users:].T

    def layer_weights(self) -> tuple[float, ...]:
        """alpha_0 .. alpha_L."""
        if self.layers < 0 or self.combine not in ("mean", "last"):
            raise BadInput(
                f"layers must be at least 0 and combine 'mean' or 'last', got {self.layers}, {self.combine}"
            )
        if self.combine == "last":
            return (0.0,) * self.layers + (1.0,)
        return (1 / (self.layers + 1),) * (self.layers + 1)


class _Step:
    """One optimiser step on a batch of triples. Writes the gradient itself: autograd sees only the batch's rows."""

    def __init__(self, settings: LightGCN, matrix: sparse.csr_array) -> None:
        self.users, self.l2 = matrix.shape[0], settings.l2
        self.propagation = Propagation(
            adjacency(matrix, settings.normalisation), settings.layer_weights(), settings.device
        )
        with seeded(settings.seed):
            start = 0.1 * torch.randn(sum(matrix.shape), settings.dim)
        self.weight = start.to(settings.device).requires_grad_()
        self.optimiser = torch.optim.Adam([self.weight], lr=settings.lr, fused=True)

    def __call__(self, batch: Triples) -> float:
        weight = self.weight.detach()
        asked = torch.stack([batch.users, batch.positives + self.users, batch.negatives + self.users])
        nodes, place = torch.unique(asked.to(weight.device), return_inverse=True)
        rows = self.propagation.rows(weight, nodes).requires_grad_()
        loss = bpr_loss(*rows[place])
        (at_rows,) = torch.autograd.grad(loss, rows)
        gradient = self.propagation.gradient(weight, nodes, at_rows)
        times = torch.bincount(place.flatten(), minlength=len(nodes)).to(weight.dtype)
        gradient.index_add_(0, nodes, weight[nodes] * (times * (self.l2 / len(batch.users)))[:, None])
        self.weight.grad = gradient
        self.optimiser.step()
        return loss.item()

    def final(self) -> Tensor:
        return self.propagation.all(self.weight.detach())
