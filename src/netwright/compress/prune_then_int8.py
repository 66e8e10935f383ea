"""Pruning followed by quantisation, as one candidate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from netwright.compress.parts.keep import Scope
from netwright.compress.parts.prune import Prune
from netwright.compress.static_int8 import StaticInt8
from netwright.core.budget import Budget
from netwright.core.task import Task


@dataclass(frozen=True)
class PruneThenInt8:
    """Remove units, fine-tune, then quantise what is left to 8 bits.

    The order of Deep Compression (arXiv 1510.00149), whose steps gain independently of each other; here whole
    units go instead of single weights, so that the result is faster without a sparse kernel, and the grid is
    uniform. Fields are those of `Prune` and `StaticInt8`. The calibration comes out of the same budget.
    """

    importance: Literal["taylor", "magnitude", "random"] = "taylor"
    scope: Scope = "global"
    ratio: float = 0.5
    steps: int = 1
    epochs: float = 5
    lr: float = 1e-3
    batch_size: int = 128
    examples: int = 256
    range: Literal["minmax", "percentile", "mse"] = "minmax"
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        prune = Prune(
            importance=self.importance, scope=self.scope, ratio=self.ratio, steps=self.steps, epochs=self.epochs,
            lr=self.lr, batch_size=self.batch_size, seed=self.seed,
        )  # fmt: skip
        quantise = StaticInt8(examples=self.examples, range=self.range, seed=self.seed)
        # the calibration is a matter of forward passes; it gets what a twentieth of the budget buys
        small = prune(network, task, budget.part(0.95))
        return quantise(small, task, budget.part(0.05))
