"""Interval bound propagation.

On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models (arXiv 1810.12715).
"""

from __future__ import annotations

from dataclasses import dataclass

from netwright.verify.parts.certify import Certify, Method


@dataclass(frozen=True)
class IntervalBounds(Certify):
    """Prove by intervals that are propagated forward, the last affine layers merged into the margins.

    All else, the attack that comes first included, is that of `Certify`.
    """

    bound: Method = "interval"
