"""Linear neighbour averaging over the user-item graph, computed only where a training step needs it.

The final embedding of a node is sum_k alpha_k (A^k E)[node], A the normalised adjacency of the bipartite graph. A
batch asks for a few thousand of the rows, so the last product is taken on those rows of A alone; and because all of
it is linear, the gradient at E is the transposed sum, by Horner's rule, with nothing saved from the way forward. For
three layers that is four products with the full matrix a step instead of six, and two buffers instead of eight.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

Normalisation = Literal["symmetric", "left"]


def adjacency(matrix: sparse.csr_array, normalisation: Normalisation = "symmetric") -> sparse.csr_array:
    """Normalised (users + items, users + items) adjacency without self loops: D^-1/2 A D^-1/2, or D^-1 A."""
    graph = sparse.block_array([[None, matrix], [matrix.T, None]], format="csr").astype(np.float32)
    degree = np.asarray(graph.sum(1)).ravel()
    power = -0.5 if normalisation == "symmetric" else -1.0
    scale = np.where(degree > 0, np.maximum(degree, 1.0) ** power, 0.0).astype(np.float32)
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    graph.data = graph.data * scale[rows] * (scale[graph.indices] if normalisation == "symmetric" else 1)
    graph.sort_indices()
    return graph


def to_torch(matrix: sparse.csr_array, device: torch.device) -> Tensor:
    """A scipy CSR matrix as a torch CSR tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int32)), torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(matrix.data), matrix.shape, check_invariants=False,
        ).to(device)  # fmt: skip


class Propagation:
    """sum_k weights[k] A^k, applied to embeddings (N, d), and its transpose.

    graph: A (N, N), scipy CSR. weights: alpha_0 .. alpha_L.
    """

    def __init__(
        self, graph: sparse.csr_array, weights: tuple[float, ...], device: torch.device | str = "cpu"
    ) -> None:
        self.weights, self.device = weights, torch.device(device)
        self.matrix = to_torch(graph, self.device)
        transposed = sparse.csr_array(graph.T)
        transposed.sort_indices()
        same = (graph != transposed).nnz == 0
        self.transposed = self.matrix if same else to_torch(transposed, self.device)
        self._buffers: tuple[Tensor, Tensor] | None = None

    @property
    def layers(self) -> int:
        return len(self.weights) - 1

    def _pair(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Two (N, d) buffers, kept between steps: fresh pages would cost more than the product that fills them."""
        if self._buffers is None or self._buffers[0].shape != like.shape:
            self._buffers = torch.empty_like(like), torch.empty_like(like)
        return self._buffers

    def all(self, embedding: Tensor) -> Tensor:
        """Final embeddings of every node (N, d)."""
        total, layer = self.weights[0] * embedding, embedding
        for weight in self.weights[1:]:
            layer = self.matrix @ layer
            total.add_(layer, alpha=weight)
        return total

    def _select(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """CSR parts of the rows of A for these nodes: row starts (M + 1,), columns and values (P,)."""
        starts, ends = self.matrix.crow_indices()[nodes].long(), self.matrix.crow_indices()[nodes + 1].long()
        counts = ends - starts
        begins = torch.zeros(len(nodes) + 1, dtype=torch.long, device=self.device)
        torch.cumsum(counts, 0, out=begins[1:])
        at = torch.arange(int(begins[-1]), device=self.device)
        at += torch.repeat_interleave(starts - begins[:-1], counts)
        return begins.int(), self.matrix.col_indices()[at], self.matrix.values()[at]

    def rows(self, embedding: Tensor, nodes: Tensor) -> Tensor:
        """Final embeddings (M, d) of these distinct nodes (M,), equal to `all(embedding)[nodes]`. No autograd."""
        total, layer = self.weights[0] * embedding[nodes], embedding
        for k in range(1, self.layers):
            layer = torch.mm(self.matrix, layer, out=self._pair(embedding)[k % 2])
            total.add_(layer[nodes], alpha=self.weights[k])
        if self.layers:
            part = torch.sparse_csr_tensor(
                *self._select(nodes), (len(nodes), len(embedding)), check_invariants=False
            )
            total.add_(part @ layer, alpha=self.weights[-1])
        return total

    def gradient(self, embedding: Tensor, nodes: Tensor, rows: Tensor) -> Tensor:
        """The gradient at the embedding (N, d) of a gradient (M, d) at `rows(embedding, nodes)`.

        The result is a buffer that the next call overwrites.
        """
        here, there = self._pair(embedding)
        if self.layers == 0:
            return here.zero_().index_add_(0, nodes, rows, alpha=self.weights[0])
        here.copy_(self._transposed_part(nodes, rows)).mul_(self.weights[-1])
        here.index_add_(0, nodes, rows, alpha=self.weights[-2])
        for weight in reversed(self.weights[:-2]):
            torch.mm(self.transposed, here, out=there).index_add_(0, nodes, rows, alpha=weight)
            here, there = there, here
        return here

    def _transposed_part(self, nodes: Tensor, rows: Tensor) -> Tensor:
        """A[nodes]' rows: (N, d)."""
        size = self.matrix.shape[0]
        begins, columns, values = self._select(nodes)
        if self.device.type == "cpu":
            # scipy walks the compressed columns as they lie; torch would convert them first (four times slower).
            part = sparse.csc_array(
                (values.numpy(), columns.numpy(), begins.numpy()), shape=(size, len(nodes))
            )
            return torch.from_numpy(part @ rows.numpy())
        part = torch.sparse_csr_tensor(begins, columns, values, (len(nodes), size), check_invariants=False)
        return part.t() @ rows
