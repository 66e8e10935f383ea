"""The same architecture with new random weights: what 'from scratch' means for any network."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from netwright.core.network import check_trainable, clone, seeded


def reinitialised(network: nn.Module, seed: int) -> nn.Module:
    """A copy whose parameters are drawn anew, each module by its own initialiser where it has one.

    An initialiser is a method `reset_parameters` (or `_reset_parameters`). That of a module runs after those of
    the modules inside it, as their constructors did, so that a network may draw all of its layers in its own way.

    Parameters that belong to no module with an initialiser (a class token, the weights of a network read from a
    file) get torch's default: matrices and larger uniform with fan-in scaling, names ending in 'bias' zero, other
    vectors keep what they are if constant, else one. Running statistics start anew; other buffers stay.
    NotApplicable for a network whose weights are 8-bit integers.
    """
    check_trainable(network)
    fresh = clone(network)
    covered: set[int] = set()
    with seeded(seed), torch.no_grad():
        for module in _inside_out(fresh):
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
                covered |= {id(p) for p in module.parameters(recurse=False)}
        for name, parameter in fresh.named_parameters():
            if id(parameter) not in covered:
                _draw(name, parameter)
    return fresh


def _inside_out(network: nn.Module) -> Iterator[nn.Module]:
    """Every module once, after all that are inside it."""
    met: set[nn.Module] = set()

    def visit(module: nn.Module) -> Iterator[nn.Module]:
        if module not in met:
            met.add(module)
            for child in module.children():
                yield from visit(child)
            yield module

    return visit(network)


def _draw(name: str, parameter: Tensor) -> None:
    if parameter.dim() >= 2:
        nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
    elif name.endswith("bias"):
        parameter.zero_()
    elif parameter.numel() and not bool((parameter == parameter.flatten()[0]).all()):
        parameter.fill_(1.0)
