"""Pruning Filters for Efficient ConvNets, arXiv 1608.08710."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from netwright.compress.parts.prune import Prune


@dataclass(frozen=True)
class MagnitudePruning(Prune):
    """Remove the units with the smallest weights (L1 norm), then fine-tune.

    The other fields, and where we differ from the paper: as in `Prune`.
    """

    importance: Literal["magnitude"] = "magnitude"
