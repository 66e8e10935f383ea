"""Graph recommenders with what LightGCN left out: feature transforms, nonlinearities, the interaction term.

Wang et al., "Neural Graph Collaborative Filtering", arXiv 1905.08108. Written plainly with autograd: it is the
baseline that LightGCN is measured against, and the switches are its ablations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from netwright.core.budget import Budget
from netwright.core.network import seeded
from netwright.domains.graphs.parts.bpr import Triples, bpr_loss, train
from netwright.domains.graphs.parts.interactions import check
from netwright.domains.graphs.parts.propagation import adjacency, to_torch
from netwright.domains.graphs.parts.recommender import Recommender


class Product(torch.autograd.Function):
    """A X for a symmetric CSR matrix A, whose gradient is again A times the gradient."""

    @staticmethod
    def forward(ctx, matrix: Tensor, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(matrix)
        return matrix @ x

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        (matrix,) = ctx.saved_tensors
        return None, matrix @ gradient.contiguous()


@dataclass(repr=False, eq=False)
class NGCF(Recommender):
    """Layer: act((A + I) E W1 + (A E * E) W2), then the layers concatenated, as in NGCF's code.

    transform: W1, W2 are learned (else the identity); activation: leaky ReLU, slope 0.2 (else none); interaction: the
    term with W2, the self-loop, unit-length layers and concatenation (else LightGCN's A E and mean over layers).
    All three off is LightGCN. dropout: on each layer's output.
    """

    dim: int = 64
    layers: int = 3
    lr: float = 1e-3
    l2: float = 1e-4
    batch_size: int = 2048
    epochs: int = 400
    transform: bool = True
    activation: bool = True
    interaction: bool = True
    dropout: float = 0.1
    seed: int = 0

    def fit(self, X: sparse.csr_array, y: None = None, *, budget: Budget | None = None) -> NGCF:
        self.interactions_ = check(X)
        self.graph_ = to_torch(adjacency(self.interactions_), torch.device("cpu"))
        with seeded(self.seed):
            self._start()
            optimiser = torch.optim.Adam([self.weight_, *self.maps_.parameters()], lr=self.lr, fused=True)

            def step(batch: Triples) -> float:
                n_users = self.interactions_.shape[0]
                asked = torch.stack([batch.users, batch.positives + n_users, batch.negatives + n_users])
                ranking = bpr_loss(*self._final(training=True)[asked])
                norms = self.weight_[asked].pow(2).sum()
                optimiser.zero_grad(set_to_none=True)
                (ranking + self.l2 * 0.5 * norms / len(batch.users)).backward()
                optimiser.step()
                return ranking.item()

            self.losses_ = train(
                self.interactions_, step, epochs=self.epochs, batch_size=self.batch_size, seed=self.seed,
                budget=budget,
            )  # fmt: skip
        with torch.no_grad():
            self.embeddings_ = self._final(training=False)
        return self

    def scores(self, users: np.ndarray) -> Tensor:
        return self.embeddings_[torch.from_numpy(users)] @ self.embeddings_[self.interactions_.shape[0] :].T

    def _start(self) -> None:
        self.weight_ = (0.1 * torch.randn(sum(self.interactions_.shape), self.dim)).requires_grad_()
        count = (2 if self.interaction else 1) * self.layers if self.transform else 0
        self.maps_ = nn.ModuleList(nn.Linear(self.dim, self.dim) for _ in range(count))
        for linear in self.maps_:
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def _final(self, training: bool) -> Tensor:
        maps = iter(self.maps_) if self.transform else iter([nn.Identity()] * 2 * self.layers)
        layer, kept = self.weight_, [self.weight_]
        for _ in range(self.layers):
            side = Product.apply(self.graph_, layer)
            mixed = (
                next(maps)(side + layer) + next(maps)(side * layer) if self.interaction else next(maps)(side)
            )
            layer = F.leaky_relu(mixed, 0.2) if self.activation else mixed
            layer = F.dropout(layer, self.dropout, training) if self.interaction else layer
            kept.append(F.normalize(layer) if self.interaction else layer)
        return torch.cat(kept, 1) if self.interaction else torch.stack(kept).mean(0)
