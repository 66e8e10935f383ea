"""A dense network pruned at once, trained again from several seeds, and what two of these say of each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from netwright.compress.parts.masks import maskable, masked
from netwright.compress.three_regime.landscape import connectivity, error_of, output_similarity
from netwright.core.budget import Budget
from netwright.core.fit import Fit, History
from netwright.core.task import Task
from netwright.core.weights.parametrise import bake

Regime = Literal["I", "II-A", "II-B"]
ADVICE: dict[Regime, str] = {"I": "hotter", "II-A": "colder", "II-B": "as it is"}


@dataclass(frozen=True)
class Cuts:
    """Where regimes part. barrier: below minus this, connectivity counts as a barrier, in errors (0.01: a point).
    similar: outputs whose CKA is at least this are alike. The paper draws both by eye."""

    barrier: float = 0.01
    similar: float = 0.9

    def regime(self, lmc: float, cka: float) -> Regime:
        """I: a barrier. II-A: none, but outputs differ. II-B: none, and outputs are alike."""
        if lmc < -self.barrier:
            return "I"
        return "II-A" if cka < self.similar else "II-B"


@dataclass(frozen=True)
class Pruned:
    """A dense network at one density: its retrained networks, and means over their pairs."""

    networks: tuple[nn.Module, ...]
    lmc: float
    cka: float

    def error(self, task: Task, split: str) -> float:
        """Mean over the networks."""
        return sum(error_of(network, task, split) for network in self.networks) / len(self.networks)


def same_share(network: nn.Module, density: float) -> dict[str, Tensor]:
    """Masks that leave this share of every layer's weights, the largest: by layer."""
    masks = {}
    for name in maskable(network):
        size = network.get_submodule(name).weight.detach().abs().flatten()  # type: ignore[union-attr, operator]
        kept = torch.zeros_like(size)
        kept[size.topk(max(1, round(density * size.numel()))).indices] = 1
        masks[name] = kept.view_as(network.get_submodule(name).weight)  # type: ignore[arg-type]
    return masks


def pruned(
    dense: nn.Module,
    task: Task,
    density: float,
    retrain: Fit,
    seeds: Sequence[int],
    trainings: Callable[[Callable[[Budget], History]], None],
    points: int = 11,
    examples: int = 1024,
) -> Pruned:
    """One mask, as many trainings as seeds, and the line and likeness of every two of them. trainings: runs each, on
    the budget that it may have."""
    masks, networks = same_share(dense, density), []
    for seed in seeds:
        thin = masked(dense, masks)
        fit = replace(retrain, seed=seed)
        trainings(lambda part, fit=fit, thin=thin: fit(thin, task, part))
        networks.append(bake(thin))
    pairs = list(itertools.combinations(networks, 2))
    lines = [connectivity(one, two, task, points, examples).lmc for one, two in pairs]
    alike = [output_similarity(one, two, task.train, examples) for one, two in pairs]
    return Pruned(tuple(networks), sum(lines) / len(lines), sum(alike) / len(alike))
