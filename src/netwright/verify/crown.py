"""CROWN: linear bounds carried backward through the network.

Efficient Neural Network Robustness Certification with General Activation Functions (arXiv 1811.00866).
"""

from __future__ import annotations

from dataclasses import dataclass

from netwright.verify.parts.certify import Certify, Method


@dataclass(frozen=True)
class Crown(Certify):
    """Prove by linear bounds that are carried back to the input, intermediate bounds tightened in the same way.

    All else, the attack that comes first included, is that of `Certify`.
    """

    bound: Method = "crown"
