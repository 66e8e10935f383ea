"""Structured pruning whose shares per layer are searched by LINAS on what was measured.

"A Hardware-Aware System for Accelerating Deep Neural Network Optimization" (DyNAS-T), arXiv 2202.12954, with a
trained network's own groups of units as the space in place of a supernet.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from netwright.core import progress
from netwright.core.budget import Budget, Meter, Target
from netwright.core.errors import BadInput
from netwright.core.fit import Fit
from netwright.core.task import Task
from netwright.search.linas import LINAS
from netwright.search.linas_pruning.pruning_space import CostName, PruningSpace
from netwright.search.parts.archive import Archive, Measurement

# what is asked of a measurement, over what is asked of the network: latencies scatter, and fewer
# multiply-accumulates save less time than their number says
MARGIN: dict[str, float] = {"latency": 0.95, "macs": 0.8, "bytes": 1.0}
LATENCY_SECONDS = 60.0  # a search that is shorter cannot export and time a network for each measurement


@dataclass(frozen=True)
class LinasPruning:
    """Search the share of units that each group keeps, take the measured point that meets the target, fine-tune it.

    Objectives are the error without fine-tuning and the cost that the budget's target names: measured ONNX latency
    for `faster` (and by default), bytes for `smaller`. Of the measured points that meet the target, the one with the
    least error is taken; if none does, the one that comes nearest. Without a target, half the latency is asked for.

    population, measurements, evaluations: as in `LINAS`; the uniform shares are measured first. search: share of the
    budget that the search may take, its scores and recalibrations counted as examples and epochs. Each measurement of
    latency exports a network, so that a search of under a minute, or one without a clock in its budget (which must be
    repeatable), counts multiply-accumulates in its place. epochs, lr, batch_size: of the fine-tuning.

    Where we differ from the paper: there is no supernet, its sub-networks are prunings of the given network.
    """

    population: int = 16
    measurements: int = 80
    evaluations: int = 2000
    search: float = 0.5
    epochs: float = 5
    lr: float = 1e-3
    batch_size: int = 128
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        if not 0 < self.search < 1:
            raise BadInput(f"the search's share of the budget lies between 0 and 1, not {self.search}")
        meter = budget.start()
        space, archive = self.explore(network, task, budget, meter)
        limits = wanted(budget.target, space.costs)
        point = choose(archive, limits)
        small = space.build(archive.named(point.choice))
        if self.epochs and not meter.exhausted:
            Fit(epochs=self.epochs, lr=self.lr, batch_size=self.batch_size, seed=self.seed)(
                small, task, meter=meter
            )
        return small.eval()

    def explore(
        self, network: nn.Module, task: Task, budget: Budget, meter: Meter
    ) -> tuple[PruningSpace, Archive]:
        """The space, and everything measured in it."""
        progress.step(0, None, "preparing the search space")
        part = budget.part(self.search)
        space = PruningSpace(network, task, costs=asked(budget.target), seed=self.seed)
        meter.spend(space.scored, space.scored / len(task.train))
        count = self._affordable(part, space, len(task.train))
        if part.seconds is None or part.seconds < LATENCY_SECONDS:
            space.costs = tuple("macs" if c == "latency" else c for c in space.costs)
        share = min(wanted(budget.target, space.costs).values())
        # multiply-accumulates fall with the square of the share kept; a search that is cut short has seen the likeliest
        likely = sorted(space.ratios[:-1], key=lambda ratio: (ratio**2 > share, abs(ratio**2 - share)))
        start = dict.fromkeys(space.uniform(ratio) for ratio in likely)
        searcher = LINAS(self.population, count, self.evaluations, self.seed, start=tuple(start))
        seconds = None if part.seconds is None else max(0.0, part.seconds - meter.elapsed)
        archive = searcher(space, task, Budget(seconds=seconds))
        passed = len(archive.log) * space.recalibrated
        meter.spend(passed + len(archive.log) * space.samples, passed / len(task.train))
        return space, archive

    def _affordable(self, part: Budget, space: PruningSpace, training: int) -> int:
        """How many measurements the samples and epochs allow, at least one: each recalibrates on training examples
        and is judged on validation examples."""
        allowed = [self.measurements]
        if part.samples is not None:
            allowed.append((part.samples - space.scored) // (space.samples + space.recalibrated))
        if part.epochs is not None and space.recalibrated:
            allowed.append(int((part.epochs * training - space.scored) / space.recalibrated))
        return max(1, min(allowed))


def asked(target: Target) -> tuple[CostName, ...]:
    """The costs that the target speaks of."""
    costs: tuple[CostName, ...] = ("bytes",) if target.smaller is not None else ()
    return ("latency", *costs) if target.faster is not None or not costs else costs


def wanted(target: Target, costs: tuple[CostName, ...]) -> dict[str, float]:
    """The most that each cost may be, as a fraction of the original's."""
    faster = target.faster or (None if target.smaller else 2.0)
    factors = {"latency": faster, "macs": faster, "bytes": target.smaller}
    return {c: min(1.0, MARGIN[c] / factor) for c in costs if (factor := factors[c]) is not None}


def choose(archive: Archive, limits: dict[str, float]) -> Measurement:
    """Of the measured points within the limits the one with the least error, else the one nearest to them."""

    def over(m: Measurement) -> float:
        return max((max(0.0, m.objectives[c] / most - 1) for c, most in limits.items()), default=0.0)

    return min(archive.log, key=lambda m: (over(m), m.objectives["error"], sum(m.objectives.values())))
