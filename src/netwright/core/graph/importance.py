"""How much a network would miss each unit of its groups."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from netwright.core import progress
from netwright.core.budget import Meter
from netwright.core.graph.groups import Group
from netwright.core.network import batch_size, call, check_trainable, clone, device_of, move
from netwright.core.task import Task

Scores = dict[str, Tensor]


def magnitude(network: nn.Module, groups: Sequence[Group]) -> Scores:
    """L1 norm of a unit's weights, those that make it and those that read it; (size,) per group.

    Biases and normalisation have no part in it.
    """
    tensors = {n: p.detach() for n, p in network.named_parameters() if p.dim() > 1}
    return {
        group.name: torch.stack(
            [
                _per_unit(tensors[part.parameter].abs(), part.axis, part.index)
                for part in group.slices
                if part.parameter in tensors
            ]
        ).sum(0)
        for group in groups
    }


def filters(network: nn.Module, groups: Sequence[Group]) -> Scores:
    """L1 norm of the weights that make a unit, not of those that read it (arXiv 1608.08710); (size,) per group."""
    tensors = {n: p.detach() for n, p in network.named_parameters() if p.dim() > 1}
    scores = magnitude(network, groups)
    for group in groups:
        making = [part for part in group.slices if part.parameter in tensors and not part.reads]
        if making:
            norms = [_per_unit(tensors[part.parameter].abs(), part.axis, part.index) for part in making]
            scores[group.name] = torch.stack(norms).sum(0)
    return scores


def taylor(
    network: nn.Module, groups: Sequence[Group], task: Task, samples: int, size: int, seed: int, meter: Meter
) -> Scores:
    """Squared first-order change of the loss if a unit were gone, averaged over batches; (size,) per group.

    With a gate z = 1 on each unit, the change is dL/dz (eq. 8 of the paper). The gate's derivative is the sum of
    gradient times weight over the weights that read the unit, which holds for every operator between.
    """
    check_trainable(network)
    copy = clone(network).eval()
    for parameter in copy.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    tensors = dict(copy.named_parameters())
    device, seen = device_of(copy), 0
    totals = {group.name: torch.zeros(group.size) for group in groups}
    for inputs, targets in task.train.batches(size, shuffle=True, seed=seed):
        if seen >= samples or (seen and meter.exhausted):
            break
        copy.zero_grad(set_to_none=True)
        task.loss(call(copy, move(inputs, device)), targets.to(device)).backward()
        for group in groups:
            totals[group.name] += _gate(tensors, group).square().cpu()
        seen += batch_size(inputs)
        meter.spend(batch_size(inputs), batch_size(inputs) / len(task.train))
        progress.step(seen, samples, "measuring importance")
    return totals


def _gate(tensors: dict[str, nn.Parameter], group: Group) -> Tensor:
    """dL/dz of a gate on each unit (size,)."""
    weights = [part for part in group.slices if part.parameter in tensors]
    readers = [part for part in weights if part.reads] or [
        p for p in weights if tensors[p.parameter].dim() > 1
    ]
    first = tensors[weights[0].parameter]
    total = torch.zeros(group.size, device=first.device)
    for part in readers:
        tensor = tensors[part.parameter]
        if tensor.grad is not None:
            total += _per_unit(tensor.grad * tensor.detach(), part.axis, part.index)
    return total


def _per_unit(values: Tensor, axis: int, index: Tensor) -> Tensor:
    """Sum over each unit's slices: values (..., n, ...), index (size, k) -> (size,)."""
    return values.movedim(axis, 0).flatten(1).sum(1)[index.to(values.device)].sum(1)


def at_random(groups: Sequence[Group], seed: int) -> Scores:
    """The control: no knowledge at all."""
    generator = torch.Generator().manual_seed(seed)
    return {group.name: torch.rand(group.size, generator=generator) for group in groups}
