"""The delta activation layer: values on a grid, so that most of them stay what they were from frame to frame."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.weights.parametrise import straight

Gradient = Literal["released", "lsq", "fixed"]
_LEAST = 1e-4


class Delta(nn.Module):
    """x (...) -> theta * round(x / theta), the same shape; theta = |parameter|, of a shape that broadcasts to x.

    The gradient of x passes straight through the rounding. That of theta: 'released', -round(x / theta), which blocks
    the division and turns the product's sign, as in the authors' code, so that a loss on differences lets theta grow;
    'lsq', round(x / theta) - x / theta (arXiv 1902.08153, for a grid without ends, unscaled); 'fixed', none.
    """

    def __init__(
        self, theta: float = 0.1, gradient: Gradient = "released", shape: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        if not theta > 0:
            raise BadInput(f"theta is a step above 0, not {theta}")
        if gradient not in ("released", "lsq", "fixed"):
            raise BadInput(f"no gradient named '{gradient}'; use released, lsq or fixed")
        self.gradient = gradient
        self.parameter = nn.Parameter(torch.full(shape, theta), requires_grad=gradient != "fixed")

    @property
    def theta(self) -> Tensor:
        """The step, above 0."""
        size = self.parameter.abs()
        return straight(size, size.clamp_min(_LEAST)) if torch.is_grad_enabled() else size.clamp_min(_LEAST)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta
        if not torch.is_grad_enabled():
            return theta * torch.round(x / theta)
        if self.gradient == "lsq":
            steps = x / theta
            return straight(steps, torch.round(steps)) * theta
        step = theta.detach()
        codes = torch.round(x.detach() / step)
        y = straight(x, step * codes)
        return y - (theta - step) * codes if self.gradient == "released" else y

    def extra_repr(self) -> str:
        return f"theta={self.parameter.detach().abs().mean().item():.3g}, gradient={self.gradient}"


def change(y: Tensor) -> Tensor:
    """The loss term of a layer's outputs y (B, T, ...): the mean of |y_t - y_(t-1)|, the first frame excluded."""
    return (y[:, 1:] - y[:, :-1]).abs().mean()
