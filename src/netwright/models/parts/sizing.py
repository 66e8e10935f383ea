"""Networks of a given number of parameters, by choosing their width; and what all builders check."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from netwright.core.errors import BadInput, NotApplicable
from netwright.core.network import parameter_count


def sized(make: Callable[[int], nn.Module], size: int, what: str) -> nn.Module:
    """The network make(width) whose parameters come nearest to `size`, by bisection over width >= 1.

    make must grow with width. Candidates are counted on the meta device, so nothing is allocated or drawn.
    """

    def count(width: int) -> int:
        with torch.device("meta"):
            return parameter_count(make(width))

    smallest = count(1)
    if size < 1 or smallest > 1.5 * size:
        raise BadInput(f"a {what} of {size:,} parameters is not possible here: the smallest has {smallest:,}")
    high = 2
    while count(high) < size:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= size else (low, middle)
    return make(min((low, high), key=lambda width: abs(count(width) - size)))


def scaled(widths: Sequence[int], first: int) -> tuple[int, ...]:
    """The same proportions, beginning with `first`."""
    return tuple(max(1, round(w * first / widths[0])) for w in widths)


def image_shape(shape: tuple[int, ...], what: str) -> tuple[int, int, int]:
    """(C, H, W) of at least 8x8, or a refusal."""
    if len(shape) != 3:
        raise NotApplicable(f"a {what} takes images (C, H, W), not inputs of shape {shape}")
    if min(shape[1:]) < 8:
        raise NotApplicable(f"a {what} needs images of at least 8x8, not {shape[1]}x{shape[2]}")
    return shape


def initialise(network: nn.Module) -> nn.Module:
    """He initialisation for convolutions (fan out, counted per group) and truncated normal for linear layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1] // module.groups
            nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
