"""What is pruned: whole filters by a predefined shape, channels that slimming found, single weights by magnitude.

A pruner makes a small network of a trained one, with the weights that are left; `renewed` gives that new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from netwright.compress.parts.keep import Scope, Sizes, choose
from netwright.compress.parts.masks import maskable, masked, masks_of
from netwright.core.errors import NotApplicable
from netwright.core.fit import Loss
from netwright.core.graph import Dependencies, dependencies, prune, trace
from netwright.core.graph.importance import Scores, filters
from netwright.core.measure.cost import cost
from netwright.core.network import Inputs, call, device_of, move
from netwright.core.taps import Taps
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised
from netwright.core.weights.parametrise import bake

Pruner = Literal["filters", "slimming", "weights"]

_LEAST = 0.1  # share of every group that stays: a layer without units has no outputs


def by_filters(large: nn.Module, task: Task, ratio: float) -> nn.Module:
    """A predefined shape: the same share of every layer, the filters of the smallest L1 norm (arXiv 1608.08710).

    ratio: share of the multiply-accumulates that goes.
    """
    found = _dependencies(large, task)
    return _without(large, found, filters(large, found.groups), ratio, "layer", task)


def by_scales(large: nn.Module, task: Task, ratio: float) -> nn.Module:
    """A discovered shape: one threshold for the batch norms' scales |gamma| of all layers (arXiv 1708.06519).

    For a network that was trained with `slimming_loss`. A unit that passes several batch norms has the mean of their
    scales; units that pass none stay. NotApplicable where no unit passes one.
    """
    found = _dependencies(large, task)
    modules = dict(large.named_modules())
    norms = {f"{n}.weight": m for n, m in modules.items() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    scores: Scores = {}
    for group in found.groups:
        scales = [
            norms[part.parameter].weight.detach().abs()[part.index].mean(1)
            for part in group.slices
            if part.parameter in norms
        ]
        stays = torch.full((group.size,), torch.inf)
        scores[group.name] = torch.stack(scales).mean(0).cpu() if scales else stays
    if not any(bool(s.isfinite().any()) for s in scores.values()):
        raise NotApplicable("network slimming thresholds the scales of batch norms, and no unit passes one")
    return _without(large, found, scores, ratio, "global", task)


def by_weights(large: nn.Module, task: Task, ratio: float) -> nn.Module:
    """Single weights, one threshold for the magnitudes of all: masks, no smaller tensors (arXiv 1506.02626).

    ratio: share of the weights that goes, of the convolutions alone where there are any, as the authors do, else of the
    linear layers but the last.
    """
    names = maskable(large)
    sizes = {name: large.get_submodule(name).weight.detach().abs() for name in names}
    every = torch.cat([size.flatten() for size in sizes.values()])
    threshold = every.kthvalue(max(1, int(ratio * every.numel()))).values
    return masked(large, {name: (size > threshold).float() for name, size in sizes.items()})


PRUNERS: dict[str, Callable[[nn.Module, Task, float], nn.Module]] = {
    "filters": by_filters, "slimming": by_scales, "weights": by_weights,
}  # fmt: skip


def slimming_loss(penalty: float, smoothing: float, task: Task) -> Loss:
    """The task's loss plus penalty * sum |gamma| over all batch norms."""

    def loss(network: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        total = task.loss(call(network, inputs), targets, smoothing)
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                total = total + penalty * module.weight.abs().sum()
        return total

    return loss


def renewed(pruned: nn.Module, seed: int) -> nn.Module:
    """The pruned shape with new weights.

    Under a mask they are as wide as if the layer had no more inputs than the mask leaves: drawn for n inputs of which k
    are left, they are multiplied by sqrt(n / k), as the authors draw them.
    """
    masks = masks_of(pruned)
    fresh = reinitialised(bake(pruned), seed)
    with torch.no_grad():
        for name, mask in masks.items():
            fresh.get_submodule(name).weight.mul_(mask.mean().clamp_min(1 / mask.numel()).rsqrt())
    return masked(fresh, masks)


def macs_of(network: nn.Module, task: Task) -> float:
    """Multiply-accumulates of one example; those with a masked weight do not count, whatever the hardware does."""
    example = task.example()
    total = float(cost(network, example).macs)
    masks = masks_of(network)
    with torch.no_grad(), Taps(network, list(masks)) as taps:
        call(network, move(example, device_of(network)))
        for name, mask in masks.items():
            output = taps[name]
            channels = output.shape[1] if output.dim() > 2 else output.shape[-1]
            total -= float((mask == 0).sum()) * output[0].numel() / channels
    return total


def _dependencies(network: nn.Module, task: Task) -> Dependencies:
    found = dependencies(trace(network, task.example(2)))
    if not found.groups:
        reason = next(iter(found.blocked.values()), "it has no layer between its input and its output")
        raise NotApplicable(f"this network has no unit that can be removed: {reason}")
    return found


def _without(
    network: nn.Module, found: Dependencies, scores: Scores, ratio: float, scope: Scope, task: Task
) -> nn.Module:
    """The network without the units of the lowest scores, so that this share of the multiply-accumulates goes."""
    sizes = Sizes(found)
    whole = sizes.measure({group.name: group.size for group in found.groups}, "macs")
    keep = choose(sizes, scores, whole * (1 - ratio), "macs", scope, _LEAST, 1)
    return prune(network, task.example(2), keep, found)
