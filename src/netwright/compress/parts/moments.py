"""What a layer is given and should give, as second moments: what any rounding of its weight does wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from netwright.compress.parts.int8_graph import CONVOLUTIONS

_CHUNK = 64  # examples whose patches are held at a time


@dataclass(frozen=True)
class Moments:
    """Second moments of a layer's inputs x, and of the outputs y that it should have, over examples and positions.

    inputs: (G, n, n) mean of x x^T, one for each group of a grouped convolution. outputs: (O, n) mean of y x^T.
    What a weight w (O, n) does wrong, the mean of |w x - y|^2, is w inputs w^T - 2 w outputs^T and a constant.
    """

    inputs: Tensor
    outputs: Tensor

    def error(self, weight: Tensor) -> Tensor:
        """(O,) of a weight (O, ...), without the constant: so below zero where w explains something of y."""
        parts = weight.reshape(len(self.inputs), -1, self.inputs.shape[1])
        square = ((parts @ self.inputs) * parts).sum(2).reshape(-1)
        return square - 2 * (weight.flatten(1) * self.outputs).sum(1)


def moments(node: fx.Node, x: Tensor, y: Tensor, weight: Tensor, centred: bool) -> Moments:
    """Of the layer `node`, whose input is x and which should give y less its bias.

    centred: less the means, for a layer whose bias is to make up for them.
    """
    total, count = None, 0
    for patches, wanted in _patches(node, x, y, weight):  # (G, N, n), (G, N, O / G)
        found = [patches.mT @ patches, wanted.mT @ patches, patches.sum(1), wanted.sum(1)]
        total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
        count += patches.shape[1]
    assert total is not None
    inputs, outputs, mean_x, mean_y = (t / count for t in total)
    if centred:
        inputs = inputs - mean_x[:, :, None] * mean_x[:, None, :]
        outputs = outputs - mean_y[:, :, None] * mean_x[:, None, :]
    return Moments(inputs, outputs.flatten(0, 1))


def _patches(node: fx.Node, x: Tensor, y: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What each output of the layer is made of, and the output, a chunk of examples at a time."""
    if node.target not in CONVOLUTIONS:
        yield x.reshape(1, -1, x.shape[-1]), y.reshape(1, -1, y.shape[-1])
        return
    settings = node.args[3:6]
    groups = int(node.args[6]) if len(node.args) > 6 else 1  # type: ignore[call-overload]
    n = weight[0].numel()
    identity = torch.eye(n).view(n, *weight.shape[1:])  # a convolution with it gives the patches
    for part, wanted in zip(x.split(_CHUNK), y.split(_CHUNK), strict=True):
        made = [node.target(piece, identity, None, *settings) for piece in part.chunk(groups, 1)]  # type: ignore[operator]
        yield (
            torch.stack([_listed(piece) for piece in made]),
            torch.stack([_listed(piece) for piece in wanted.chunk(groups, 1)]),
        )


def _listed(x: Tensor) -> Tensor:
    """(B, C, ...) -> (B ..., C)."""
    return x.movedim(1, -1).flatten(0, -2)
