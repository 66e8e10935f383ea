"""Recovery: low-rank changes of the layers of each block are learned, then merged into them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils import parametrize

from netwright.compress.cfsp.find import Block
from netwright.core.budget import Meter
from netwright.core.fit import Fit
from netwright.core.network import clone, device_of, seeded
from netwright.core.task import Task
from netwright.core.weights.parametrise import LowRankChange, bake


def ranks(angles: Tensor, mean: int) -> list[int]:
    """Rank of each block, in proportion to its mean angle, one at least."""
    relative = angles / angles.mean().clamp_min(1e-30)
    return [max(1, round(mean * float(each))) for each in relative]


def recovered(
    network: nn.Module, blocks: Sequence[Block], every: Sequence[int], task: Task, fit: Fit, meter: Meter
) -> nn.Module:
    """A copy whose blocks have learned on. every: the rank of each block's changes."""
    learning = clone(network)
    wanted = {name: tensor.requires_grad for name, tensor in learning.named_parameters()}
    learning.requires_grad_(False)
    learned: list[Tensor] = []
    with seeded(fit.seed):
        for block, rank in zip(blocks, every, strict=True):
            for layer in _layers(learning, block):
                change = LowRankChange(rank, layer.weight.shape).to(device_of(layer), layer.weight.dtype)
                parametrize.register_parametrization(layer, "weight", change)
                learned.extend(change.parameters())
    history = fit(learning, task, meter.left(), parameters=learned)
    meter.spend(history.samples, history.samples / len(task.train))
    merged = bake(learning)
    for name, tensor in merged.named_parameters():
        tensor.requires_grad_(wanted[name])
    return merged.eval()


def _layers(network: nn.Module, block: Block) -> list[nn.Linear]:
    """The plain linear layers of a block, attention's among them, whose weights nobody else holds."""
    holders: dict[int, int] = {}
    for module in network.modules():
        for tensor in module.parameters(recurse=False):
            holders[id(tensor)] = holders.get(id(tensor), 0) + 1
    return [
        module
        for module in network.get_submodule(block.name).modules()
        if type(module) is nn.Linear and module.weight.is_floating_point() and holders[id(module.weight)] == 1
    ]
