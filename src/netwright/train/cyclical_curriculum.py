"""Cyclical Curriculum Learning (Kesgin and Amasyali, IEEE TNNLS 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.budget import Budget, Meter, within
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.metrics import outputs_of
from netwright.core.split import Batch
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised


@dataclass(frozen=True)
class CyclicalCurriculum:
    """Train a new network of the given architecture on a training set that shrinks and grows in cycles.

    1. The architecture is trained in the ordinary way, with at most half of the budget, and scores every training
    example: easy is 1 / loss. Both are charged to the budget, the scores as samples. 2. A second, new network
    is trained in rounds; round t passes once over n_t N examples, drawn without replacement with probability
    proportional to score, n_t from `sizes`. Where n_t = 1 the round sees everything.

    epochs: passes over the whole set that each of the two trainings may use (the rounds' sizes sum to it).
    start, end, multiplier: the cycle of sizes (paper's code: 0.25, 1, 0.5).
    order: easy (1 / loss), hard (loss) or random (uniform, no first training). cycle: cyclical, sharp (up as in a
    cycle, then down to the start at once), grow (one way up, then full) or shrink (one way down, then smallest).
    rescore: no first training; the network that learns scores the examples itself before every round, which is charged
    as samples. Its weights say nothing yet at first, so that a cycle then begins with a round over everything.
    fit: optimiser and its settings; the schedule runs over the rounds' steps. As in the paper's code, Adam at
    batch 128 without decay of the rate.

    Differs from the authors' code: losses below the 5th percentile count as that percentile, since 1 / loss
    has no bound; nothing is selected on test data. NotApplicable where examples cannot be picked by index.
    """

    epochs: float = 10.0
    start: float = 0.25
    end: float = 1.0
    multiplier: float = 0.5
    order: Literal["easy", "hard", "random"] = "easy"
    cycle: Literal["cyclical", "sharp", "grow", "shrink"] = "cyclical"
    rescore: bool = False
    fit: Fit = Fit(schedule="constant", weight_decay=0.0)  # noqa: RUF009  frozen
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        if self.rescore and self.order == "random":
            raise BadInput("nothing is scored in random order: leave rescore out")
        _check(task, budget if self.order != "random" else Budget())
        meter = budget.start()
        allowed, first = budget.epochs, self.order != "random" and not self.rescore
        epochs = self.epochs if allowed is None else min(self.epochs, allowed / (2 if first else 1))
        scores = self._first_scores(network, task, epochs, meter) if first else torch.ones(len(task.train))
        fresh = reinitialised(network, self.seed + 1)
        rounds = sizes(epochs, self.start, self.end, self.multiplier, self.cycle, full_first=self.rescore)
        counts = [max(1, round(size * len(task.train))) for size in rounds]
        steps = sum(math.ceil(count / self.fit.batch_size) for count in counts)

        def batches(index: int) -> Iterator[Batch]:
            weights = scores
            if self.rescore:
                with within(meter.left().part(0.5).seconds):
                    weights = self._weights(fresh, task)
                meter.spend(samples=len(task.train))
            chosen = draw(weights, counts[index], seed=self.seed * 10_007 + index)
            return task.train.select(chosen).batches(
                self.fit.batch_size, shuffle=True, seed=self.seed + 1000 * (index + 1)
            )

        fit = replace(self.fit, epochs=sum(rounds), seed=self.seed)
        fit(fresh, task, batches=batches, meter=meter, steps=steps)
        return fresh

    def _first_scores(self, network: nn.Module, task: Task, epochs: float, meter: Meter) -> Tensor:
        """Weight of each training example (N,), by a network of its own."""
        n, budget = len(task.train), meter.budget
        if budget.samples is not None:
            budget = replace(budget, samples=budget.samples - n)
        scorer = reinitialised(network, self.seed)
        first = budget.part(0.5).start()  # the other half is the second network's
        replace(self.fit, epochs=epochs, seed=self.seed)(scorer, task, meter=first)
        with within(meter.left().part(0.5).seconds):
            weights = self._weights(scorer, task)
        meter.spend(first.samples + n, first.epochs)
        return weights

    def _weights(self, network: nn.Module, task: Task) -> Tensor:
        """Weight of each training example (N,), by the network's losses."""
        losses = example_losses(network, task)
        losses = losses.maximum(torch.quantile(losses, 0.05).clamp_min(1e-8))
        return 1 / losses if self.order == "easy" else losses


def _check(task: Task, budget: Budget) -> None:
    n = len(task.train)
    try:
        task.train.select(torch.arange(1))
    except NotApplicable as error:
        raise NotApplicable(f"a curriculum picks examples one by one: {error}") from None
    if budget.samples is not None and budget.samples <= n:
        raise NotApplicable(
            f"a budget of {budget.samples} samples does not even score the {n} training examples"
        )


def sizes(
    epochs: float,
    start: float = 0.25,
    end: float = 1.0,
    multiplier: float = 0.5,
    cycle: str = "cyclical",
    full_first: bool = False,
) -> list[float]:
    """Fractions of the training set, round by round, that sum to `epochs` (the last one is cut to fit).

    cyclical, start 0.25, end 1, multiplier 0.5: 0.25, 0.5, 1, 0.5, 0.25, 0.5, ... sharp: 0.25, 0.5, 1, 0.25, 0.5, ...
    full_first: a cycle begins at its end instead of its start.
    """
    if not (0 < start <= end <= 1 and 0 < multiplier < 1):
        raise BadInput(
            f"a cycle needs 0 < start <= end <= 1 and 0 < multiplier < 1, not {start}, {end}, {multiplier}"
        )
    cycles = cycle in ("cyclical", "sharp")
    rounds: list[float] = []
    down_from = cycle == "shrink" or (full_first and cycles)
    size, up, left = (end, False, epochs) if down_from else (start, True, epochs)
    while left > 1e-9:
        rounds.append(min(size, left))
        left -= rounds[-1]
        at_start, at_end = size <= start + 1e-12, size >= end - 1e-12
        if cycles:
            up = not at_end and (at_start or up)
        if cycle == "sharp" and not up:
            size = start
        else:
            size = min(end, size / multiplier) if up else max(start, size * multiplier)
    return rounds


def draw(scores: Tensor, count: int, seed: int) -> Tensor:
    """`count` indices without replacement, probability proportional to score at each draw (N,) -> (count,).

    By exponential keys (Efraimidis and Spirakis 2006), which equals drawing one after the other.
    """
    uniform = torch.rand(len(scores), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    keys = -uniform.clamp_min(1e-300).log() / scores.double()
    return keys.topk(count, largest=False).indices


def example_losses(network: nn.Module, task: Task) -> Tensor:
    """The loss of every training example (N,), in the split's order. Those that the time set around it
    (core/budget.py) leaves no time for have the mean loss of the others."""
    losses = _losses(network, task)
    return torch.cat([losses, losses.mean().expand(len(task.train) - len(losses))])


def _losses(network: nn.Module, task: Task) -> Tensor:
    outputs, targets = outputs_of(network, task.train)
    if task.kind == "classification":
        return F.cross_entropy(outputs, targets, reduction="none")
    if task.kind == "multilabel":
        return F.binary_cross_entropy_with_logits(outputs, targets.float(), reduction="none").mean(1)
    return (outputs.reshape(targets.shape) - targets.float()).pow(2).reshape(len(targets), -1).mean(1)
