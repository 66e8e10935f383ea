"""What the paper of LINAS says about measurements saved, measured here on a space whose whole front is known."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netwright.claims.beds.trained import testbed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import column, estimate, mean
from netwright.core import progress
from netwright.core.budget import Budget
from netwright.core.task import Task
from netwright.search.linas import LINAS
from netwright.search.linas.evolution import nsga2
from netwright.search.linas.surrogate import Surrogate, one_hot
from netwright.search.linas_pruning.pruning_space import PruningSpace
from netwright.search.parts.archive import Archive, hypervolume

# LINAS's median number of measurements over that of each other arm
MOST = {"direct NSGA-II": 0.5, "predictor fitted once": 0.99, "random": 0.99}
CLAIM = Claim(
    slug="linas",
    paper="as good a front with 8 times fewer measurements than WeakNAS, and far fewer than direct NSGA-II",
    setting=(
        "a trained ResNet of depth 8 and width 16 on digits, pruned to a quarter, half or all of the units in each "
        "of its 6 groups: all 729 choices measured (error on 359 validation images without fine-tuning, batch "
        "norms recalibrated; multiply-accumulates), so that the true front is known; a search per arm and "
        "each of 10 seeds on this one table, population 20 and 1,000 evaluations of the predictors per round (the "
        "paper's: 50 and 20,000); figure: measurements until "
        "95 % of the true hypervolume, reference point the worst value of each objective in the table"
    ),
    rule=Rule(
        holds=tuple(Part(f"median over that of {arm}", "at most", most) for arm, most in MOST.items()),
        bed=(Part("median of random, share of the space", "at least", 0.1),),
    ),
)

SHARE, LIMIT, POPULATION = 0.95, 160, 20
SHOWN = (40, 80, 160)
CHOICES = 729


@dataclass
class Table:
    """A space whose every choice has been measured; looking one up is free."""

    genes: Mapping[str, int]
    values: dict[tuple[int, ...], dict[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, space: PruningSpace, task: Task) -> Table:
        table = cls(dict(space.genes))
        every = list(itertools.product(*(range(n) for n in table.genes.values())))
        for done, codes in enumerate(every):
            table.values[codes] = space.measure(dict(zip(table.genes, codes, strict=True)), task)
            if done % 50 == 0:
                progress.step(done, len(every), "measuring every choice")
        return table

    def measure(self, choice: Mapping[str, int], task: Task) -> Mapping[str, float]:
        return self.values[tuple(choice.values())]

    @property
    def array(self) -> np.ndarray:
        return np.array([list(v.values()) for v in self.values.values()])


def random_search(table: Table, task: Task, seed: int) -> Archive:
    archive = Archive(table, task)
    every = list(table.values)
    for index in np.random.default_rng(seed).permutation(len(every)):
        archive.measure(every[index], 0)
    return archive


def direct(table: Table, task: Task, seed: int) -> Archive:
    """NSGA-II on the measurements themselves, pymoo's own mutation rate of one gene; repeats are free. What it has
    not met when it ends follows at random."""
    archive = Archive(table, task)

    def evaluate(rows: np.ndarray) -> np.ndarray:
        return np.array([archive.measure(row, 0) for row in rows])

    nsga2(
        archive.sizes, 2, evaluate, population=POPULATION, evaluations=4000, seed=seed,
        mutation=1 / len(archive.sizes),
    )  # fmt: skip
    return finish(archive, seed)


def once(table: Table, task: Task, seed: int) -> Archive:
    """The same predictors, fitted once on three populations at random; then NSGA-II's choice on them, then random."""
    archive = Archive(table, task)
    every = list(table.values)
    order = np.random.default_rng(seed).permutation(len(every))
    for index in order[: 3 * POPULATION]:
        archive.measure(every[index], 0)
    x, values = one_hot(archive.codes, archive.sizes), archive.values
    models = [Surrogate(seed=seed).fit(x, values[:, j]) for j in range(2)]
    predict = lambda rows: np.stack([m.predict(one_hot(rows, archive.sizes)) for m in models], 1)
    for row in nsga2(
        archive.sizes, 2, predict, population=5 * POPULATION, evaluations=5000, seed=seed, mutation=0.1
    ):
        archive.measure(row, 1)
    return finish(archive, seed)


def linas(table: Table, task: Task, seed: int) -> Archive:
    search = LINAS(population=POPULATION, measurements=LIMIT, evaluations=1000, seed=seed)
    return finish(search(table, task, Budget()), seed)


def finish(archive: Archive, seed: int) -> Archive:
    every = list(archive.space.values)  # type: ignore[attr-defined]
    for index in np.random.default_rng(seed + 1).permutation(len(every)):
        archive.measure(every[index], -1)
    return archive


ARMS = {"linas": linas, "direct NSGA-II": direct, "predictor fitted once": once, "random": random_search}


def needed(archive: Archive, reference: np.ndarray, goal: float) -> int:
    """Measurements until the hypervolume of what was measured reaches the goal."""
    values, low, high = archive.values, 1, len(archive.log)
    while low < high:
        middle = (low + high) // 2
        if hypervolume(values[:middle], reference) >= goal:
            high = middle
        else:
            low = middle + 1
    return low


def measure(scale: Scale) -> list[dict[str, Any]]:
    seeds = scale.seeds if len(scale.seeds) > 3 else tuple(range(10))
    network, task = testbed("digits-resnet", 0)
    table = Table.of(PruningSpace(network, task, costs=("macs",), ratios=(0.25, 0.5, 1.0), round_to=1), task)
    reference = table.array.max(0)
    full = hypervolume(table.array, reference)
    rows: list[dict[str, Any]] = []
    for arm, search in ARMS.items():
        for seed in seeds:
            progress.step(len(rows), len(ARMS) * len(seeds), arm)
            archive = search(table, task, seed)
            shares = {f"share_at_{n}": hypervolume(archive.values[:n], reference) / full for n in SHOWN}
            rows.append(
                {"arm": arm, "seed": seed, "measurements": needed(archive, reference, SHARE * full), **shares}
            )
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures: dict[str, Any] = {}
    for arm in ARMS:
        counts = list(column(rows, arm, "measurements").values())
        shares = {f"share at {n}": mean(rows, arm, f"share_at_{n}") for n in SHOWN}
        figures[arm] = {"median measurements": float(np.median(counts)), **estimate(counts), **shares}
    medians = {arm: figures[arm]["median measurements"] for arm in ARMS}
    figures |= {f"median over that of {arm}": medians["linas"] / medians[arm] for arm in MOST}
    shown = ", ".join(f"{arm} {m:.0f}" for arm, m in medians.items())
    return Measured(
        f"median measurements to 95 % of the true hypervolume, of {CHOICES}: {shown}",
        figures,
        {"median of random, share of the space": medians["random"] / CHOICES},
        "The space is small, so that predictors have little to win over measuring; one trained network, the searches "
        "differ in their seeds. Costs of fitting predictors are not counted: measurements are.",
    )
