"""Which way every weight is rounded, learned from what its layer is given.

Up or Down? Adaptive Rounding for Post-Training Quantization (AdaRound), arXiv 2004.10568.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from netwright.compress.parts.moments import Moments
from netwright.core.weights.grids import Integers, Uniform
from netwright.core.weights.parametrise import Quantiser


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
