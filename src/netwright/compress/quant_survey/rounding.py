"""Which way every weight is rounded, learned from what its layer is given.

Up or Down? Adaptive Rounding for Post-Training Quantization (AdaRound), arXiv 2004.10568.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from netwright.compress.parts.int8_graph import CONVOLUTIONS
from netwright.core.weights.grids import Integers, Uniform
from netwright.core.weights.parametrise import Quantiser

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


@dataclass(frozen=True)
class AdaRound:
    """Learn for each weight whether it is rounded up or down.

    The weight is scale (floor(w / scale) + h) with h = clip(1.2 sigmoid(v) - 0.1, 0, 1), and v is learned by Adam from
    h = w / scale - floor(w / scale) on: the mean squared error of the layer's output, over that of rounding to the
    nearest, plus `pull` times the mean of 1 - |2h - 1|^beta after the first fifth of the steps, with beta from 20 to 2,
    which brings h to 0 or 1.

    Where we differ from the paper: the error is taken from second moments, so that each step sees all examples, and of
    the output before its activation; it is relative, so that one `pull` suits layers of any scale, where the paper's
    0.01 times a sum leaves h between 0 and 1 wherever errors are large; 1,000 steps, where the paper takes 10,000 of 32
    examples; and a channel that is no better than by rounding to the nearest is rounded so.
    """

    steps: int = 1000
    lr: float = 1e-2
    pull: float = 3.0

    def __call__(self, weight: Tensor, quantiser: Quantiser, seen: Moments, seconds: float) -> Integers:
        """The integers of a weight (O, ...). seconds: after so many it ends with what it has."""
        grid, near = quantiser.grid, quantiser.to_integer(weight)
        assert isinstance(grid, Uniform)
        ratio = quantiser.rows(weight) / near.scale
        floor = ratio.floor()
        v = torch.logit((ratio - floor + 0.1) / 1.2).requires_grad_()

        def twin(up: Tensor) -> Integers:
            codes = (floor + up + near.zero).clamp(grid.lowest, grid.highest)
            return Integers(codes, near.scale, near.zero)

        def errors(found: Integers) -> Tensor:
            return seen.error(quantiser.unrows(found.values(), weight))

        least = errors(Integers(ratio + near.zero, near.scale, near.zero)).sum()  # of the weights as they are
        unit = (errors(near).sum() - least).clamp_min(1e-30)
        optimiser = torch.optim.Adam([v], self.lr)
        end = time.monotonic() + seconds
        with torch.enable_grad():
            for step in range(self.steps):
                if time.monotonic() > end:
                    break
                up = (1.2 * v.sigmoid() - 0.1).clamp(0, 1)
                loss = (errors(twin(up)).sum() - least) / unit
                done = (step / self.steps - 0.2) / 0.8
                if done >= 0:
                    loss = loss + self.pull * (1 - (2 * up - 1).abs() ** (20 - 18 * done)).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        learned = twin((v.detach() > 0).to(ratio))
        better = errors(learned) < errors(near)
        shape = (-1, *[1] * (weight.dim() - 1))
        chosen = quantiser.rows(better.to(ratio).view(shape).expand_as(weight)) > 0
        codes = torch.where(chosen, learned.codes, near.codes.to(ratio)).to(torch.int32)
        return Integers(codes, near.scale, near.zero)
