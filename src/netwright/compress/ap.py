"""Iterative pruning that also takes away weights which keep ReLU units silent, and how many units are silent.

AP: Selective Activation for De-sparsifying Pruned Neural Networks, TMLR 2023, arXiv 2212.06145.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from netwright.compress.parts.masks import masked
from netwright.core import progress
from netwright.core.budget import Budget, in_time
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.network import call, check_trainable, clone, device_of, evaluating, move
from netwright.core.split import Split
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised
from netwright.core.weights.parametrise import bake

Tensors = dict[str, Tensor]
CYCLE = Fit(epochs=5)


@dataclass(frozen=True)
class AP:
    """Train, prune a share of the weights that are left, put the others back to where they began, and again.

    AP: Selective Activation for De-sparsifying Pruned Neural Networks (arXiv 2212.06145). Each cycle trains with `fit`,
    then the base pruner removes `share` - `active` of the weights that are left and AP `active` of them: of the
    negative ones those that moved least during the cycle, since they mainly hold units below zero, so that a ReLU
    behind them is silent. As many go as with the base pruner alone (active=0). After the last cycle there is one more
    training. Of all weights (1 - share)^cycles are left.

    base: 'magnitude', all layers together; 'lamp', the square over the sum of the squares that are no smaller in its
    layer (arXiv 2010.07611); 'random'. rewind: weights that stay go back to the 'given' network's, to new ones that are
    the same in all cycles ('new', the paper's text), or to others in each cycle ('fresh', what its released code does
    by default). Masked are the weights of convolutions and linear layers; biases and normalisations stay, and are put
    back too. The paper has 25 cycles of SGD for 50 epochs on networks from new weights; the defaults here are what a
    user with a trained network can afford.

    Gives a network of the same size with zeros in its weights: smaller once compressed, no faster on a CPU. A budget
    that ends early leaves more weights. Raises NotApplicable where there is no such layer or no example to train on.
    """

    share: float = 0.2
    active: float = 0.02
    cycles: int = 5
    base: Literal["magnitude", "lamp", "random"] = "magnitude"
    rewind: Literal["given", "new", "fresh"] = "given"
    fit: Fit = CYCLE
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        return bake(self.masked(network, task, budget))

    def masked(
        self,
        network: nn.Module,
        task: Task,
        budget: Budget,
        on_density: Callable[[nn.Module, float], None] | None = None,
    ) -> nn.Module:
        """The trained network under its masks. on_density: sees each trained network and the share of its weights."""
        self._check()
        check_trainable(network)
        names = prunable(network)
        meter = budget.start()
        masks = {name: torch.ones_like(network.get_submodule(name).weight) for name in names}  # type: ignore[arg-type]
        for cycle in range(self.cycles + 1):
            start = self._start(network, cycle)
            thin = masked(start, masks)
            part = meter.left().part(1 / (self.cycles + 1 - cycle))
            history = replace(self.fit, seed=self.seed + cycle)(thin, task, part)
            meter.spend(history.samples, history.samples / max(1, len(task.train)))
            progress.step(cycle + 1, self.cycles + 1, f"{100 * density(masks):.0f} % of the weights")
            if on_density is not None:
                on_density(thin, density(masks))
            if cycle == self.cycles or meter.exhausted:
                break
            masks = self.next_masks(masks, weights_of(start, names), weights_of(bake(thin), names))
        return thin

    def next_masks(self, masks: Tensors, start: Tensors, end: Tensors) -> Tensors:
        """Masks without `share` of the weights that they leave. start, end: the weights before and after a cycle."""
        left = flat(masks) > 0
        count = round(float(left.sum()) * self.share)
        chosen = round(float(left.sum()) * self.active)
        gone = lowest(self._scores(end, masks), left, count - chosen)
        left &= ~gone
        moved = (flat(end) - flat(start)).abs()
        gone |= lowest(moved, left & (flat(end) < 0), chosen)
        kept, at = flat(masks), 0
        kept[gone] = 0
        made = {}
        for name, mask in masks.items():
            made[name] = kept[at : at + mask.numel()].view_as(mask)
            at += mask.numel()
        return made

    def _scores(self, weights: Tensors, masks: Tensors) -> Tensor:
        if self.base == "random":
            draw = torch.Generator().manual_seed(self.seed)
            return torch.rand(flat(masks).numel(), generator=draw).to(flat(masks).device)
        if self.base == "magnitude":
            return flat(weights).abs()
        return torch.cat([lamp((weights[name] * mask).flatten()) for name, mask in masks.items()])

    def _start(self, network: nn.Module, cycle: int) -> nn.Module:
        if self.rewind == "given":
            return clone(network)
        return reinitialised(network, self.seed + (1000 * cycle if self.rewind == "fresh" else 0))

    def _check(self) -> None:
        if not 0 <= self.active <= self.share < 1 or self.cycles < 1:
            raise BadInput("AP needs 0 <= active <= share < 1 and a cycle at least")
        for name, known in (("base", ("magnitude", "lamp", "random")), ("rewind", ("given", "new", "fresh"))):
            if getattr(self, name) not in known:
                raise BadInput(f"no {name} named '{getattr(self, name)}'; use {', '.join(known)}")


def prunable(network: nn.Module) -> list[str]:
    """Convolutions and linear layers by name; NotApplicable where there is none."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    taken = lambda m: parametrize.is_parametrized(m, "weight")
    found = [name for name, m in network.named_modules() if isinstance(m, kinds) and not taken(m)]
    shared: dict[int, str] = {}
    for name in found:
        shared.setdefault(id(network.get_submodule(name).weight), name)
    if not shared:
        raise NotApplicable("masks of single weights need convolutions or linear layers")
    if len(shared) < len(found):
        raise NotApplicable("layers share a weight here, and a mask belongs to one layer")
    return found


def weights_of(network: nn.Module, names: list[str]) -> Tensors:
    return {name: network.get_submodule(name).weight.detach() for name in names}  # type: ignore[union-attr]


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def density(masks: Mapping[str, Tensor]) -> float:
    """Share of the weights that masks leave."""
    return float(flat(masks).mean())


def lowest(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """(N,) whether a weight is one of the `count` with the lowest scores among these; of fewer, all."""
    ranked = torch.where(among, scores, torch.inf).argsort(stable=True)
    found = torch.zeros_like(among)
    found[ranked[: min(count, int(among.sum()))]] = True
    return found


def lamp(weights: Tensor) -> Tensor:
    """w^2 over the sum of the squares of its layer that are no smaller (n,)."""
    squares, order = weights.double().square().sort(stable=True)
    beyond = squares.flip(0).cumsum(0).flip(0).clamp_min(1e-300)
    return torch.empty_like(squares).scatter_(0, order, squares / beyond)


@dataclass(frozen=True)
class DeadNeurons:
    """Shares of all ReLU outputs, over units, positions and examples: rate, those that are zero; static, of units that
    give the same for every input, since all that they read is gone; dynamic, the others, which ReLU silences."""

    rate: float
    static: float
    dynamic: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dynamic", self.rate - self.static)


@torch.no_grad()
def dead_neurons(network: nn.Module, split: Split, batch_size: int = 256) -> DeadNeurons:
    """Dead-neuron rates of the network's ReLU modules; NotApplicable where it has none. Units lie along dimension 1 of
    maps (B, C, H, W), along the last dimension else."""
    zeros: dict[str, Any] = {}
    least: dict[str, Tensor] = {}
    most: dict[str, Tensor] = {}
    count: dict[str, int] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach()
            units = x.movedim(1 if x.dim() > 3 else -1, 0).flatten(1)  # (units, all else)
            place = f"{name} {len(units)}"  # a ReLU may run at several places
            low, high = units.amin(1).cpu(), units.amax(1).cpu()
            zeros[place] = zeros.get(place, 0) + (units <= 0).double().sum(1).cpu()
            least[place] = torch.minimum(least.get(place, low), low)
            most[place] = torch.maximum(most.get(place, high), high)
            count[place] = count.get(place, 0) + units.shape[1]

        return see

    watched = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.ReLU)]
    handles = [m.register_forward_pre_hook(watch(n)) for n, m in watched]
    try:
        with evaluating(network):
            for inputs, _ in in_time(split.batches(batch_size)):
                call(network, move(inputs, device_of(network)))
    finally:
        for handle in handles:
            handle.remove()
    if not count:
        raise NotApplicable("this network has no ReLU module, so that no unit of it is dead")
    total = sum(count[name] * len(zeros[name]) for name in count)
    static = sum(float(zeros[name][most[name] == least[name]].sum()) for name in count)
    return DeadNeurons(sum(float(z.sum()) for z in zeros.values()) / total, static / total)
