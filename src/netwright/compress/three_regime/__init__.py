"""How hot a network should be trained that is to be pruned: what linear paths and similar outputs tell of it.

A Three-regime Model of Network Pruning, ICML 2023, arXiv 2305.18383.
"""

from netwright.compress.three_regime.method import ThreeRegime
from netwright.compress.three_regime.regimes import Regimes

__all__ = ["Regimes", "ThreeRegime"]
