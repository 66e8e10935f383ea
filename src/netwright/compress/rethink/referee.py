"""The whole comparison: pruned and fine-tuned, against the same small network from new weights.

Rethinking the Value of Network Pruning, arXiv 1810.05270.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from netwright.compress.parts.masks import masked, masks_of
from netwright.compress.rethink.pruners import (
    PRUNERS,
    Pruner,
    by_weights,
    macs_of,
    renewed,
    slimming_loss,
)  # fmt: skip
from netwright.compress.rethink.scratch import longer
from netwright.compress.rethink.table import Row, found
from netwright.core import progress
from netwright.core.budget import time_left
from netwright.core.errors import BadInput
from netwright.core.finding import Found
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import clone
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised

CIFAR = Fit(epochs=160, batch_size=64, optimiser="sgd", lr=0.1, weight_decay=1e-4, schedule="steps")


@dataclass(frozen=True)
class Referee:
    """Train a large network, prune it, and train what is left in each of these ways, several seeds each.

    fine-tuned: inherited weights, `tuning` times the recipe's epochs, at the one of `rates` (times the recipe's
    rate) that is best on validation data. retrained: inherited weights, the whole recipe. scratch-E: new weights, the
    whole recipe. scratch-B: new weights, as many multiply-accumulates as the large network's training took, the
    schedule stretched with it. lottery: the weights that the large network began with, under the mask, with the whole
    recipe at each of `lottery` times its rate, the mask found by training at that rate; beside it new weights under the
    same mask. Only for 'weights' at the largest ratio.

    pruners: 'filters' (predefined: the same share of every layer, by L1 norm), 'slimming' (discovered: a large network
    trained with `penalty` times the L1 norm of its batch norms' scales, one threshold for all) and 'weights' (masks of
    single weights by magnitude). ratios: share that goes, of the multiply-accumulates or of the weights.
    recipe: of the large network; the paper's for CIFAR.

    Each seed has a large network of its own, the given architecture with new weights. `spent` is what an arm cost in
    multiply-accumulates, in units of the large network's training, with everything that it needs: that training too,
    where weights, a mask or a discovered shape come from it, and every rate that was tried.

    Test data are looked at once per arm, and nothing is chosen by them. The time that is set around it (`within`) ends
    it after a seed, never inside one: arms of unequal time say nothing.

    Where we differ: units are what depends on each other, and shares are of multiply-accumulates, not of channels.
    'retrained' is not in the paper; without it a short fine-tuning stands for all that inherited weights can do.
    """

    pruners: tuple[Pruner, ...] = ("filters", "slimming", "weights")
    ratios: tuple[float, ...] = (0.5, 0.75)
    recipe: Fit = CIFAR
    tuning: float = 0.25
    rates: tuple[float, ...] = (1.0, 0.1, 0.01)
    penalty: float = 1e-4
    lottery: tuple[float, ...] = (1.0, 0.1)
    seeds: tuple[int, ...] = (0, 1, 2)

    def __call__(self, network: nn.Module, task: Task) -> Found:
        self._check()
        rows: list[Row] = []
        for done, seed in enumerate(self.seeds):
            began = time.monotonic()
            initial = reinitialised(network, seed)
            large = clone(initial)
            replace(self.recipe, seed=seed)(large, task)
            rows += self.one_seed(initial, large, task, seed)
            progress.step(done + 1, len(self.seeds), f"seed {seed}")
            if time_left() < time.monotonic() - began:
                break
        return found(rows)

    def one_seed(self, initial: nn.Module, large: nn.Module, task: Task, seed: int) -> list[Row]:
        """The rows of one seed. initial: the weights that the large network began with."""
        bench = _Bench(self, task, seed, initial)
        bench.report("large", "", large, self.recipe.epochs, 1.0, 0.0)
        for pruner in self.pruners:
            base = bench.slimmed() if pruner == "slimming" else large
            for ratio in self.ratios:
                case = f"{pruner} {ratio:g}"
                pruned = PRUNERS[pruner](base, task, ratio)
                bench.inherited(case, pruned)
                bench.scratch(case, pruned, charged=0.0 if pruner == "filters" else 1.0)
        if "weights" in self.pruners:
            for factor in self.lottery:
                bench.lottery(factor, large, max(self.ratios))
        return bench.rows

    def _check(self) -> None:
        if unknown := [p for p in self.pruners if p not in PRUNERS]:
            raise BadInput(f"no pruner named '{unknown[0]}'; use {', '.join(PRUNERS)}")
        if not self.ratios or not all(0 < ratio < 1 for ratio in self.ratios):
            raise BadInput(f"pruning ratios lie between 0 and 1, not {self.ratios}")
        if not self.rates or not self.seeds or not self.pruners:
            raise BadInput("the comparison needs a pruner, a seed and a rate for fine-tuning")


@dataclass
class _Bench:
    """Trains and records the arms of one seed."""

    referee: Referee
    task: Task
    seed: int
    initial: nn.Module
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recipe = replace(self.referee.recipe, seed=self.seed)
        self.whole = macs_of(self.initial, self.task)

    def train(self, network: nn.Module, epochs: float, rate: float = 1.0, **how: Any) -> float:
        """Train in place with the recipe, shortened or stretched and its rate multiplied; the seconds that it took."""
        began = time.monotonic()
        stretch = epochs / self.recipe.epochs
        recipe = replace(
            self.recipe, epochs=epochs, lr=rate * self.recipe.lr, warmup=stretch * self.recipe.warmup
        )
        recipe(network, self.task, **how)
        return time.monotonic() - began

    def slimmed(self) -> nn.Module:
        """The large network trained with the penalty on its batch norms' scales."""
        network = clone(self.initial)
        loss = slimming_loss(self.referee.penalty, self.recipe.label_smoothing, self.task)
        seconds = self.train(network, self.recipe.epochs, loss=loss)
        self.report("large, slimming", "", network, self.recipe.epochs, 1.0, seconds)
        return network

    def inherited(self, case: str, pruned: nn.Module) -> None:
        """Fine-tuned at the best rate, and retrained."""
        epochs, best = self.referee.tuning * self.recipe.epochs, (-1.0, 1.0)
        tuned, seconds, share = pruned, 0.0, macs_of(pruned, self.task) / self.whole
        for rate in self.referee.rates:
            trial = clone(pruned)
            seconds += self.train(trial, epochs, rate)
            score = evaluate(trial, self.task, "val")[self.task.primary]
            if score > best[0]:
                best, tuned = (score, rate), trial
        trained = len(self.referee.rates) * epochs / self.recipe.epochs
        self.report("fine-tuned", case, tuned, epochs, 1 + trained * share, seconds, rate=best[1])
        again = clone(pruned)
        seconds = self.train(again, self.recipe.epochs)
        self.report("retrained", case, again, self.recipe.epochs, 1 + share, seconds)

    def scratch(self, case: str, pruned: nn.Module, charged: float) -> None:
        """New weights, for as many epochs and for as many multiply-accumulates. charged: the large network's training,
        where the shape comes from it."""
        macs = macs_of(pruned, self.task)
        lengths = {
            "scratch-E": self.recipe.epochs,
            "scratch-B": longer(self.recipe.epochs, self.whole, macs),
        }
        for number, (arm, epochs) in enumerate(lengths.items()):
            network = renewed(pruned, self._new(number))
            seconds = self.train(network, epochs)
            spent = charged + epochs / self.recipe.epochs * macs / self.whole
            self.report(arm, case, network, epochs, spent, seconds)

    def lottery(self, factor: float, large: nn.Module, ratio: float) -> None:
        """Original and new weights under one mask, at `factor` times the recipe's rate."""
        if factor != 1:
            large = clone(self.initial)
            self.train(large, self.recipe.epochs, factor)
        ticket = by_weights(large, self.task, ratio)
        case = f"weights {ratio:g}, rate x {factor:g}"
        share = macs_of(ticket, self.task) / self.whole
        original = masked(self.initial, masks_of(ticket))
        for arm, network in (("lottery", original), ("new weights", renewed(ticket, self._new(2)))):
            seconds = self.train(network, self.recipe.epochs, factor)
            self.report(arm, case, network, self.recipe.epochs, 1 + share, seconds)

    def _new(self, number: int) -> int:
        """A seed for new weights: neither those that the large network began with nor another arm's."""
        return 1000 * (number + 1) + self.seed

    def report(
        self, arm: str, case: str, network: nn.Module, epochs: float, spent: float, seconds: float, **more: float
    ) -> None:  # fmt: skip
        score: Callable[[str], float] = lambda split: evaluate(network, self.task, split)[self.task.primary]
        row = {
            "arm": arm, "case": case, "seed": self.seed, "metric": self.task.primary, "test": score("test"),
            "val": score("val"), "epochs": epochs, "macs": macs_of(network, self.task) / self.whole,
            "spent": spent, "seconds": seconds, **more,
        }  # fmt: skip
        self.rows.append(row)
        progress.step(len(self.rows), None, f"{arm} {case}, seed {self.seed}".strip())
