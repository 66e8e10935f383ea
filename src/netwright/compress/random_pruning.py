"""Recovering from Random Pruning: On the Plasticity of Deep Convolutional Neural Networks, arXiv 1801.10447."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from netwright.compress.parts.prune import Prune


@dataclass(frozen=True)
class RandomPruning(Prune):
    """Remove units at random, then fine-tune: the control that any criterion must beat.

    The other fields, and where we differ from the paper: as in `Prune`.
    """

    importance: Literal["random"] = "random"
