"""Masks over single weights: where they are put, and what they leave."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize

from netwright.core.errors import NotApplicable
from netwright.core.network import clone
from netwright.core.weights.parametrise import Mask


def masked(network: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy in which the weights of these layers pass these masks."""
    thin = clone(network)
    for name, mask in masks.items():
        parametrize.register_parametrization(thin.get_submodule(name), "weight", Mask(mask.clone()))
    return thin


def masks_of(network: nn.Module) -> dict[str, Tensor]:
    """Layer -> mask of its weight."""
    found = {}
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            first = module.parametrizations.weight[0]  # type: ignore[union-attr, index]
            if isinstance(first, Mask):
                found[name] = first.mask
    return found


def maskable(network: nn.Module) -> list[str]:
    """The convolutions where there are any, else the linear layers but the last, by name."""
    named = list(network.named_modules())
    found = [name for name, m in named if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    found = found or [name for name, m in named if isinstance(m, nn.Linear)][:-1]
    if not found:
        raise NotApplicable("masks of single weights need convolutions, or linear layers before the last one")
    return found
