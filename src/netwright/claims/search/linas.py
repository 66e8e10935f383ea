"""What the paper of LINAS says about measurements saved, measured here on a space whose whole front is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from netwright.claims.beds.cells import OPERATIONS, Cells
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import column, estimate, mean
from netwright.core import progress
from netwright.core.budget import Budget
from netwright.core.task import Task
from netwright.search.linas import LINAS
from netwright.search.linas.evolution import evolve, nsga2
from netwright.search.linas.surrogate import Surrogate, one_hot
from netwright.search.parts.archive import Archive, front, hypervolume

# LINAS's median number of measurements over that of each other arm
MOST = {"direct NSGA-II": 0.5, "predictor fitted once": 0.99, "random": 0.99}
CLAIM = Claim(
    slug="linas",
    seeds=20,
    paper="as good a front with 8 times fewer measurements than WeakNAS, and far fewer than direct NSGA-II",
    setting=(
        "NAS-Bench-201: six edges of five operations, 9,445 cells that differ, each trained for 12 epochs on CIFAR-10 "
        "by the benchmark's authors, so that the true front of error and latency is known; latency is the sum of the "
        "operations' times, measured on this machine at the network's three sizes; edges on no path are inactive; 20 "
        "seeds of each arm, population 20 and 1,000 evaluations of the predictors per round (the paper's: 50 and "
        "20,000); figure: measurements until 95 % of the true hypervolume, reference point the worst value of each "
        "objective on the true front"
    ),
    rule=Rule(
        holds=tuple(Part(f"median over that of {arm}", "at most", most) for arm, most in MOST.items()),
        bed=(Part("median of random", "at least", 200),),
    ),
)

SHARE, LIMIT, POPULATION = 0.95, 160, 20
SHOWN = (40, 80, 160)


def random_search(cells: Cells, task: Task, seed: int) -> Archive:
    archive = Archive(cells, task)
    every = list(cells.choices)
    for index in np.random.default_rng(seed).permutation(len(every)):
        archive.measure(every[index], 0)
    return archive


def direct(name: str) -> Any:
    """A peer on the measurements themselves; repeats are free. What it has not met when it ends follows at random."""

    def search(cells: Cells, task: Task, seed: int) -> Archive:
        archive = Archive(cells, task)
        evaluate = lambda rows: np.array([archive.measure(row, 0) for row in rows])
        evolve(name, archive.sizes, 2, evaluate, population=POPULATION, evaluations=1000, seed=seed)
        return finish(archive, seed)

    return search


def once(cells: Cells, task: Task, seed: int) -> Archive:
    """The same predictors, fitted once on three populations at random; then NSGA-II's choice on them, then random."""
    archive = Archive(cells, task)
    every = list(cells.choices)
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


def linas(cells: Cells, task: Task, seed: int) -> Archive:
    search = LINAS(population=POPULATION, measurements=LIMIT, evaluations=1000, seed=seed)
    return finish(search(cells, task, Budget()), seed)


def finish(archive: Archive, seed: int) -> Archive:
    every = list(archive.space.choices)  # type: ignore[attr-defined]
    for index in np.random.default_rng(seed + 1).permutation(len(every)):
        archive.measure(every[index], -1)
    return archive


ARMS = {
    "linas": linas, "direct NSGA-II": direct("nsga2"), "direct U-NSGA-III": direct("u-nsga3"),
    "direct C-TAEA": direct("c-taea"), "direct MOEA/D": direct("moea/d"), "predictor fitted once": once,
    "random": random_search,
}  # fmt: skip


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
    cells = Cells.read()
    values, task = cells.array, None
    reference = values[front(values)].max(0)
    full = hypervolume(values, reference)
    rows: list[dict[str, Any]] = []
    for arm, search in ARMS.items():
        for seed in scale.seeds:
            progress.step(len(rows), len(ARMS) * len(scale.seeds), arm)
            archive = search(cells, task, seed)
            shares = {f"share_at_{n}": hypervolume(archive.values[:n], reference) / full for n in SHOWN}
            rows.append(
                {"arm": arm, "seed": seed, "measurements": needed(archive, reference, SHARE * full), **shares}
            )
    milliseconds = dict(zip(OPERATIONS, cells.milliseconds, strict=True))
    rows.append({"arm": "operations", "seed": 0, "choices": len(values), **milliseconds})
    return [*rows, *({"arm": "predictors", "seed": seed, **foreseen(cells, seed)} for seed in scale.seeds)]


def foreseen(cells: Cells, seed: int, measured: int = 100) -> dict[str, float]:
    """Rank correlation over the whole space between each objective and its predictor, fitted on some at random."""
    archive, every = Archive(cells, None), list(cells.choices)  # type: ignore[arg-type]
    for index in np.random.default_rng(seed).permutation(len(every))[:measured]:
        archive.measure(every[index], 0)
    known = one_hot(archive.codes, archive.sizes)
    space = one_hot(np.array([archive.canonical(codes) for codes in every]), archive.sizes)
    found = {}
    for j, name in enumerate(("error", "latency")):
        predicted = Surrogate(seed=seed).fit(known, archive.values[:, j]).predict(space)
        found[name] = float(spearmanr(predicted, cells.array[:, j]).statistic)
    return found


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures: dict[str, Any] = {}
    for arm in ARMS:
        counts = list(column(rows, arm, "measurements").values())
        shares = {f"share at {n}": mean(rows, arm, f"share_at_{n}") for n in SHOWN}
        figures[arm] = {"median measurements": float(np.median(counts)), **estimate(counts), **shares}
    medians = {arm: figures[arm]["median measurements"] for arm in ARMS}
    figures |= {f"median over that of {arm}": medians["linas"] / medians[arm] for arm in MOST}
    shown = ", ".join(f"{arm} {m:.0f}" for arm, m in medians.items())
    table = next(row for row in rows if row["arm"] == "operations")
    times = ", ".join(f"{name} {table[name]:.2f}" for name in OPERATIONS[2:])
    return Measured(
        f"median measurements to 95 % of the true hypervolume, of {table['choices']:,}: {shown}",
        figures,
        {
            "median of random": medians["random"],
            "median of random, share of the space": medians["random"] / table["choices"],
            "rank correlation of the predicted error": mean(rows, "predictors", "error"),
            "rank correlation of the predicted latency": mean(rows, "predictors", "latency"),
        },
        f"One table of trained cells, the searches differ in their seeds. Milliseconds of the operations: {times}. "
        "Costs of fitting predictors are not counted: measurements are. AGE-MOEA, which needs numba, is left out. What "
        "bounds LINAS here is the prediction of the error from one-hot genes: a cell's operations act along paths, not "
        "one by one as the layers of a supernet do. With every choice predicted in place of the inner evolution (by "
        "hand, six seeds) it needed 104 measurements in the median, with it 81.",
        seeds=tuple(dict.fromkeys(row["seed"] for row in rows)),
    )
