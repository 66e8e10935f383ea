"""Pruning at once, of the dense network whose temperature suits the density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from netwright.compress.three_regime.heat import Heat, Knob
from netwright.compress.three_regime.pairs import ADVICE, Cuts, pruned
from netwright.compress.three_regime.regimes import check
from netwright.core import progress
from netwright.core.budget import Budget, Meter
from netwright.core.fit import Fit, History
from netwright.core.network import check_trainable, clone
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised


@dataclass(frozen=True)
class ThreeRegime:
    """Prune to a density the network given, or one trained hotter or colder, whichever the landscape speaks for.

    A Three-regime Model of Network Pruning (arXiv 2305.18383). Dense networks are the given one and, from new weights,
    one for each of `values` of the temperature's knob (heat.py): 'epochs', of which fewer are hotter; 'batch', smaller
    ones are hotter; 'rho', the radius of sharpness-aware steps, larger ones are hotter. Each is pruned at once, the
    same share of every layer by magnitude, and trained again twice. Where the line between the two has a barrier the
    dense network is dropped; of the others that with the most similar outputs (linear CKA) wins, and its first
    retrained network is the result, of the same size with zeros in its weights. Where all have barriers the lowest one
    decides. No error is compared. `Regimes`, from Python, draws the whole map of temperatures and densities.

    recipe: of dense networks, retrain: of pruned ones. The paper trains 160 epochs each; the defaults are what a user
    can afford. points: on a line; examples: for batch statistics, measured anew on it, and for CKA. barrier, similar:
    where regimes part (`Cuts`), which the paper leaves to the eye. Masked are the convolutions where there are any,
    else the linear layers but the last. A budget is shared evenly among the trainings. Raises NotApplicable where there
    is nothing to mask.
    """

    density: float = 0.2
    knob: Knob = "epochs"
    values: tuple[float, ...] = (5.0, 20.0)
    recipe: Fit = Fit(epochs=20, lr=3e-3)  # noqa: RUF009  frozen
    retrain: Fit = Fit(epochs=10, lr=1e-3)  # noqa: RUF009  frozen
    points: int = 11
    examples: int = 1024
    barrier: float = 0.01
    similar: float = 0.9
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        seeds = (2 * self.seed, 2 * self.seed + 1)
        check((self.density,), seeds, self.points)
        check_trainable(network)
        heats = [Heat(self.knob, value) for value in self.values]
        shares = _Shares(budget.start(), len(heats) + 2 * (len(heats) + 1), len(task.train))
        tried = []
        for heat in (None, *heats):
            dense = clone(network) if heat is None else reinitialised(network, self.seed)
            if heat is not None:
                shares(lambda part, heat=heat, dense=dense: heat.train(dense, task, self.recipe, part))
            made = pruned(dense, task, self.density, self.retrain, seeds, shares, self.points, self.examples)
            tried.append((made, "the given network" if heat is None else f"{self.knob} {heat.value:g}"))
            progress.step(len(tried), len(heats) + 1, tried[-1][1])
        cuts = Cuts(self.barrier, self.similar)
        free = [each for each in tried if cuts.regime(each[0].lmc, each[0].cka) != "I"]
        best, name = max(free, key=lambda each: each[0].cka) if free else max(tried, key=lambda e: e[0].lmc)
        regime = cuts.regime(best.lmc, best.cka)
        progress.remark(
            f"from {name}, regime {regime}: train {ADVICE[regime]} to prune to {self.density:.0%}"
        )
        return best.networks[0].eval()


class _Shares:
    """Runs one training after the other, each on an even part of what is left of a budget, until it is spent."""

    def __init__(self, meter: Meter, count: int, examples: int) -> None:
        self.meter, self.count, self.examples = meter, count, examples

    def __call__(self, run: Callable[[Budget], History]) -> None:
        part = self.meter.left().part(1 / self.count)
        self.count -= 1
        if not self.meter.exhausted:
            history = run(part)
            self.meter.spend(history.samples, history.samples / max(1, self.examples))
