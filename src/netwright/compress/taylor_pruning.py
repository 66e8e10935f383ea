"""Importance Estimation for Neural Network Pruning, arXiv 1906.10771."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from netwright.compress.parts.prune import Prune


@dataclass(frozen=True)
class TaylorPruning(Prune):
    """Remove the units whose loss would change the error least, by the squared first-order change, then fine-tune.

    The other fields, and where we differ from the paper: as in `Prune`.
    """

    importance: Literal["taylor"] = "taylor"
