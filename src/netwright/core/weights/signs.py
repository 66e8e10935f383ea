"""Signs, -1 and 1, and what stands for their gradient, which is 0 wherever it exists."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Slope = Callable[[Tensor], Tensor]
"""x -> what the gradient of sign(x) is taken for, the same shape."""


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Slope) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        one = torch.ones((), dtype=x.dtype, device=x.device)
        return torch.where(x >= 0, one, -one)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * ctx.slope(x), None


def sign(x: Tensor, slope: Slope) -> Tensor:
    """-1 where x < 0, else 1; the gradient is multiplied by slope(x)."""
    return _Sign.apply(x, slope)


def straight(x: Tensor) -> Tensor:
    """1 everywhere (DoReFa-Net, arXiv 1606.06160, for weights)."""
    return torch.ones_like(x)


def clipped(x: Tensor) -> Tensor:
    """1 where |x| <= 1, else 0 (Binarized Neural Networks, arXiv 1602.02830)."""
    return (x.abs() <= 1).to(x.dtype)


def quadratic(x: Tensor) -> Tensor:
    """2 - 2 |x| where |x| < 1, else 0: the slope of two parabolas that meet in 0 (Bi-Real Net, arXiv 1808.00278)."""
    return (2 - 2 * x.abs()).clamp(min=0)


@dataclass(frozen=True)
class Sines:
    """The slope of sign's Fourier series, 4/pi sum of sin((2i+1) w x) / (2i+1) for i = 0 .. n, where |x| <= 1, else 0.

    Learning Frequency Domain Approximation for Binary Neural Networks, arXiv 2103.00841.
    """

    n: int = 9
    omega: float = 0.1

    def __call__(self, x: Tensor) -> Tensor:
        # sum of cos((2i+1) a), i = 0 .. n, is sin(2 (n+1) a) / (2 sin a)
        angle, terms = self.omega * x, self.n + 1
        near = angle.abs() < 1e-4
        safe = torch.where(near, torch.ones_like(angle), angle)
        total = torch.where(near, torch.full_like(angle, terms), (2 * terms * safe).sin() / (2 * safe.sin()))
        return 4 * self.omega / math.pi * total * clipped(x)
