"""Kernels of signs drawn together, so that a tree over them is short."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from netwright.compress.mst_bnn.tree import distances, minimum
from netwright.compress.parts.binary import Learned
from netwright.core.network import Inputs, call
from netwright.core.task import Task

Towards = Literal["tree", "centre"]
Edges = tuple[Tensor, Tensor]


def layers(network: nn.Module) -> list[Learned]:
    return [module for module in network.modules() if isinstance(module, Learned)]


def signs_of(layer: Learned) -> Tensor:
    """The layer's signs (O, n); their gradient reaches the latent weights that lie within 1."""
    latent: Any = layer.parametrizations["weight"].original  # type: ignore[index]
    near = latent.clamp(-1, 1)
    return (layer.weight.detach().sign() + (near - near.detach())).flatten(1)


def edges(layer: Learned, towards: Towards) -> Edges:
    """Pairs of outputs that are drawn together: neighbours in today's minimum spanning tree, or every output and the
    one that is least far from all."""
    with torch.no_grad():
        between = distances(signs_of(layer).cpu())
    if towards == "tree":
        return minimum(between).edges()
    centre = int(between.sum(1).argmin())
    others = torch.tensor([c for c in range(len(between)) if c != centre], dtype=torch.int64)
    return torch.full_like(others, centre), others


def length(layer: Learned, pairs: Edges) -> Tensor:
    """Mean d / n of the pairs, d = (n - w_i w_j) / 2."""
    signs = signs_of(layer)
    if not len(pairs[0]):
        return signs.sum() * 0
    return ((1 - (signs[pairs[0]] * signs[pairs[1]]).mean(1)) / 2).mean()


class Drawn:
    """The task's loss plus `penalty` times the sum over layers of their trees' mean edge d / n, once `warm` steps are
    over; edges are found anew every `every` steps, and stay what they are between."""

    def __init__(self, task: Task, penalty: float, warm: int, every: int, towards: Towards) -> None:
        self.task, self.penalty, self.warm, self.every, self.towards = task, penalty, warm, every, towards
        self.step = 0
        self.pairs: list[Edges] = []

    def __call__(self, network: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        loss, since = self.task.loss(call(network, inputs), targets), self.step - self.warm
        self.step += 1
        if since < 0:
            return loss
        found = layers(network)
        if since % self.every == 0:
            self.pairs = [edges(layer, self.towards) for layer in found]
        lengths = [length(layer, pairs) for layer, pairs in zip(found, self.pairs, strict=True)]
        return loss + self.penalty * torch.stack(lengths).sum()
