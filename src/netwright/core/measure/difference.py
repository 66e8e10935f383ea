"""How far apart the outputs of two networks are."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_error(expected: Tensor, got: Tensor) -> float:
    """max |a - b| / max |a|; infinite where shapes differ or one alone is NaN or infinite.

    Outputs that are all below 1e-3 are measured against that: the sigmoids of runtimes are off by 1e-7 in absolute
    terms, however small their results.
    """
    a, b = expected.detach().cpu().double(), got.detach().cpu().double()
    if a.shape != b.shape or not torch.equal(torch.isfinite(a), torch.isfinite(b)):
        return float("inf")
    finite = torch.isfinite(a)
    if not bool(finite.any()):
        return 0.0
    a, b = a[finite], b[finite]
    return ((a - b).abs().max() / a.abs().max().clamp_min(1e-3)).item()
