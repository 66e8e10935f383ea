"""Inputs made up from what a network's batch norms remember of its training data.

ZeroQ: A Novel Zero Shot Quantization Framework, arXiv 2001.00281.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from netwright.core.budget import Meter
from netwright.core.errors import NotApplicable
from netwright.core.network import clone
from netwright.core.taps import Taps, places


def synthetic(
    network: nn.Module,
    shapes: tuple[tuple[int, ...], ...],
    count: int,
    seed: int,
    meter: Meter,
    steps: int = 200,
) -> tuple[Tensor]:
    """Inputs (count, ...) whose means and deviations before every batch norm are those that it holds.

    Begins at normal noise; Adam on the sum of squared differences, at a rate of 0.1 that falls to nothing. shapes: of
    the network's inputs, without the batch. NotApplicable for networks without batch norms, and with several inputs.
    """
    network = clone(network).cpu().eval().requires_grad_(False)
    modules = dict(network.named_modules())
    norms = [name for name in places(network, _BatchNorm) if modules[name].track_running_stats]
    if not norms:
        raise NotApplicable("there is no batch norm to make up inputs from; calibrate on training data")
    if len(shapes) != 1:
        raise NotApplicable("inputs are made up for networks of one input only; calibrate on training data")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *shapes[0], generator=generator).requires_grad_()
    optimiser = torch.optim.Adam([x], 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.enable_grad(), Taps(network, norms, inputs=True, detach=False) as taps:
        for _ in range(steps):
            taps.clear()
            network(x)
            loss = torch.stack(
                [_distance(modules[name], value) for name in norms for value in taps.all(name)]
            ).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            meter.spend(samples=count)
            if meter.exhausted:
                break
    return (x.detach(),)


def _distance(norm: nn.Module, x: Tensor) -> Tensor:
    """Of the batch's mean and deviation (B, C, ...) from those that the batch norm holds."""
    values = x.movedim(1, 0).flatten(1)
    mean, variance = norm.running_mean, norm.running_var
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    deviation = (values.var(1, correction=0) + 1e-8).sqrt()
    return (values.mean(1) - mean).pow(2).sum() + (deviation - variance.sqrt()).pow(2).sum()
