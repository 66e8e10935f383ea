"""Structured pruning: whole channels, features, heads and hidden units go; what is left learns on.

"Importance Estimation for Neural Network Pruning", arXiv 1906.10771 (Taylor), and "Pruning Filters for Efficient
ConvNets", arXiv 1608.08710 (magnitude).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from netwright.compress.parts.keep import Measure, Scope, Sizes, choose
from netwright.compress.parts.soft_targets import SoftTargets
from netwright.core.budget import Budget, Meter
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.graph import Dependencies, dependencies, prune, trace
from netwright.core.graph.importance import Scores, at_random, filters, magnitude, taylor
from netwright.core.network import clone
from netwright.core.task import Task

_SCORE_BATCH = 16


@dataclass(frozen=True)
class Prune:
    """Remove the least important units, then fine-tune what is left.

    importance: 'taylor' (squared first-order change of the loss, on `samples` training examples), 'magnitude' (L1
    norm of a unit's weights), 'filters' (of those weights alone that make the unit) or 'random' (the control).
    ratio: share of `of` ('macs', 'parameters' or 'units') to be removed; 0.5 halves it. Reached as nearly as
    `least` and `round_to` allow. steps: score, prune and fine-tune so many times, each time a part of the way.
    scope: 'global' compares units of all layers, 'layer' removes the same share of each.
    least: share of every group that stays. round_to: kept counts are multiples of it (groups of at least twice
    as many units); runtimes compute channels in blocks, and 31 channels were measured at 1.5 times the time of
    32 in ONNX Runtime (AVX-512). 1 turns it off.
    epochs, lr, batch_size: of the fine-tuning (AdamW, cosine), all steps together. alpha, temperature: weight of what
    the given network says in its loss (parts/soft_targets.py); 0, and its passes are saved.

    Returns a new network: the given one's own classes with fewer units where its code permits, else a
    torch.fx.GraphModule. Raises NotApplicable where the network has no unit that can go.

    Where we differ from the papers: a unit is everything that depends on it (residual channels are one unit),
    its score is taken over all its weights that make or read it (magnitude) or over a gate on it (Taylor); the
    filter paper's own score is 'filters'. Global scores are divided by the mean of their group, so that
    layers of different scale compare. Taylor scores are taken in evaluation mode, once per step, not while
    training goes on, and over batches of 16: in a trained network the mean gradient of a large batch vanishes and
    says little of single units.
    """

    importance: Literal["taylor", "magnitude", "filters", "random"] = "taylor"
    scope: Scope = "global"
    ratio: float = 0.5
    of: Measure = "macs"
    steps: int = 1
    least: float = 0.1
    round_to: int = 8
    samples: int = 1024
    epochs: float = 5
    lr: float = 1e-3
    batch_size: int = 128
    alpha: float = 0.0
    temperature: float = 2.0
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        self._check()
        meter = budget.start()
        example = task.example(2)
        small, whole = network, None
        for step in range(self.steps):
            found = dependencies(trace(small, example))
            if not found.groups:
                raise NotApplicable(_nothing(found))
            sizes = Sizes(found)
            if whole is None:
                whole = sizes.measure({group.name: group.size for group in found.groups}, self.of)
            target = whole * (1 - self.ratio) ** ((step + 1) / self.steps)
            scores = {name: _comparable(s) for name, s in self._scores(small, found, task, meter).items()}
            keep = choose(sizes, scores, target, self.of, self.scope, self.least, self.round_to)
            small = prune(small, example, keep, found)
            self._tune(small, network, task, meter, step)
        return small.eval() if small is not network else clone(network)

    def _check(self) -> None:
        if not 0 < self.ratio < 1:
            raise BadInput(f"a pruning ratio lies between 0 and 1, not {self.ratio}")
        if self.steps < 1 or self.round_to < 1 or not 0 <= self.least < 1:
            raise BadInput("pruning needs steps >= 1, round_to >= 1 and least in [0, 1)")
        if self.importance not in ("taylor", "magnitude", "filters", "random"):
            raise BadInput(
                f"no importance named '{self.importance}'; use taylor, magnitude, filters or random"
            )

    def _scores(self, network: nn.Module, found: Dependencies, task: Task, meter: Meter) -> Scores:
        if self.importance == "magnitude":
            return magnitude(network, found.groups)
        if self.importance == "filters":
            return filters(network, found.groups)
        if self.importance == "random":
            return at_random(found.groups, self.seed)
        return taylor(network, found.groups, task, self.samples, _SCORE_BATCH, self.seed, meter)

    def _tune(self, small: nn.Module, teacher: nn.Module, task: Task, meter: Meter, step: int) -> None:
        """Fine-tune with this step's part of the epochs and of the budget that is left."""
        epochs = self.epochs / self.steps
        if not epochs or meter.exhausted:
            return
        part = meter.left().part(1 / (self.steps - step)).start()
        fit = Fit(epochs=epochs, batch_size=self.batch_size, lr=self.lr, seed=self.seed + step)
        soft = SoftTargets(self.temperature, self.alpha).by(teacher, task, part) if self.alpha else None
        fit(small, task, meter=part, loss=soft)
        meter.spend(part.samples, part.epochs)


def _comparable(scores: Tensor) -> Tensor:
    """Divided by the mean, so that scores of different layers compare."""
    return scores / scores.mean().clamp_min(1e-30)


def _nothing(found: Dependencies) -> str:
    reason = next(iter(found.blocked.values()), "it has no layer between its input and its output")
    return f"this network has no unit that can be removed: {reason}"
