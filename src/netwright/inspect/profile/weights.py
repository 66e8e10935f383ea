"""What a layer's weights tell without any data.

A matrix of rows is compared in blocks, so that memory stays with the size of the weights. The rows of an embedding
are its vocabulary and no filters: they are not compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netwright.inspect.parts.moments import effective_rank

BLOCK = 1024


def weight_figures(module: nn.Module, duplicate: float) -> dict[str, float | int | str]:
    """Parameters, norm and zeros of all that the module holds itself; rank and duplicates of its matrices."""
    held = [p.detach() for p in module.parameters(recurse=False)]
    count = sum(p.numel() for p in held)
    row: dict[str, float | int | str] = {
        "kind": type(module).__name__,
        "parameters": count,
        "weight_norm": sum(p.double().pow(2).sum().item() for p in held) ** 0.5,
        "weight_zeros": sum(int((p == 0).sum()) for p in held) / max(1, count),
    }
    matrices = [filters(module, p) for p in held if p.dim() >= 2 and p.is_floating_point()]
    if matrices:
        # a recurrent layer has several; each counts by its outputs
        outputs = sum(m.shape[0] for m in matrices)
        ranks = [effective_rank(torch.linalg.svdvals(m)) / min(m.shape) for m in matrices]
        row["weight_rank"] = sum(r * m.shape[0] for r, m in zip(ranks, matrices, strict=True)) / outputs
        if not isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            row["duplicate_filters"] = sum(followers(m, duplicate) for m in matrices) / outputs
    return row


def filters(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight as a matrix (outputs, what feeds one output), double precision."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        weight = weight.transpose(0, 1)
    return weight.flatten(1).double()


def followers(matrix: Tensor, duplicate: float, block: int = BLOCK) -> int:
    """How many rows have an earlier one at |cosine| of at least `duplicate`. Rows of zeros follow nobody.

    Beside the matrix and its unit rows (rows, columns) no more than (block, block) numbers are held.
    """
    scale = matrix.norm(dim=1, keepdim=True)
    unit = torch.where(scale > 0, matrix / scale.clamp_min(1e-300), torch.zeros_like(matrix))
    found = 0
    for start in range(0, len(unit), block):
        later = unit[start : start + block]
        follows = ((later @ later.T).abs().tril(-1) >= duplicate).any(1)
        for before in range(0, start, block):
            follows |= ((later @ unit[before : before + block].T).abs() >= duplicate).any(1)
        found += int(follows.sum())
    return found
