"""NSGA-II over integer codes, by pymoo: simulated binary crossover, polynomial mutation, rounding, no duplicates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from pymoo.termination.max_gen import MaximumGenerationTermination


class _Codes(Problem):
    def __init__(
        self, sizes: np.ndarray, objectives: int, evaluate: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        super().__init__(n_var=len(sizes), n_obj=objectives, xl=0, xu=sizes - 1, vtype=int)
        self.evaluate_codes = evaluate

    def _evaluate(self, x, out, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        out["F"] = self.evaluate_codes(np.asarray(x, dtype=int))


def nsga2(
    sizes: np.ndarray,
    objectives: int,
    evaluate: Callable[[np.ndarray], np.ndarray],
    *,
    population: int,
    evaluations: int,
    seed: int,
    start: np.ndarray | None = None,
    crossover: float = 0.9,
    crossover_eta: float = 15,
    mutation: float = 0.02,
    mutation_eta: float = 20,
) -> np.ndarray:
    """The last population (P, genes), each row once.

    sizes: number of values per gene. evaluations: at most, population by population (a converged population has few
    new children, and then it is fewer). evaluate: codes (B, genes) -> objectives (B, M), all minimised. start: codes to
    begin with, completed at random to a population.
    """
    sizes = np.asarray(sizes)
    sampling = IntegerRandomSampling()
    if start is not None and len(start):
        rng = np.random.default_rng(seed)
        missing = max(0, population - len(start))
        sampling = np.vstack([start[:population], rng.integers(0, sizes, (missing, len(sizes)))])
    algorithm = NSGA2(
        pop_size=population,
        sampling=sampling,
        crossover=SBX(prob=crossover, eta=crossover_eta, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, prob_var=mutation, eta=mutation_eta, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.mating.n_max_iterations = (
        3  # where all children are known, 100 tries (the default) find no new one
    )
    result = minimize(
        _Codes(sizes, objectives, evaluate),
        algorithm,
        MaximumGenerationTermination(max(1, evaluations // population)),
        seed=seed,
    )
    return np.unique(np.asarray(result.pop.get("X"), dtype=int), axis=0)
