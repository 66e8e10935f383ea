"""Evolution over integer codes, by pymoo: NSGA-II, which LINAS searches its predictors with, and its peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from pymoo.termination.max_gen import MaximumGenerationTermination

from netwright.core.errors import BadInput, MissingExtra


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


Evaluate = Callable[[np.ndarray], np.ndarray]

# the paper's searchers by the number of objectives that they are for
PEERS = {1: ("ga", "cma-es"), 2: ("nsga2", "age-moea"), 3: ("u-nsga3", "c-taea", "moea/d")}
_ANY = ("nsga2", "age-moea", "u-nsga3", "c-taea", "moea/d")


def evolve(
    name: str,
    sizes: np.ndarray,
    objectives: int,
    evaluate: Evaluate,
    *,
    population: int,
    evaluations: int,
    seed: int,
) -> None:
    """Let one of PEERS propose codes (B, genes) to `evaluate`, at most so many; what is found is what was evaluated.

    GA and CMA-ES take one objective, the others several. Operators are pymoo's own for whole numbers; those that know
    numbers alone (CMA-ES) are rounded.
    """
    allowed = PEERS[1] if objectives == 1 else _ANY
    if name not in allowed:
        raise BadInput(f"'{name}' cannot search for {objectives} objectives; use {', '.join(allowed)}")
    minimize(
        _Codes(sizes, objectives, lambda rows: evaluate(np.rint(rows).astype(int))),
        _peer(name, objectives, population),
        ("n_eval", evaluations),
        seed=seed,
    )


def _peer(name: str, objectives: int, population: int) -> Any:
    """The algorithm of that name, as pymoo would have it, for whole numbers."""
    from pymoo.algorithms.moo.ctaea import CTAEA
    from pymoo.algorithms.moo.moead import MOEAD
    from pymoo.algorithms.moo.unsga3 import UNSGA3
    from pymoo.algorithms.soo.nonconvex.cmaes import CMAES
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.util.ref_dirs import get_reference_directions

    whole: dict[str, Any] = {
        "sampling": IntegerRandomSampling(),
        "crossover": SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
        "mutation": PM(eta=20, vtype=float, repair=RoundingRepair()),
    }
    if name == "cma-es":
        return CMAES(popsize=population, restarts=5)
    if name in ("u-nsga3", "c-taea", "moea/d"):
        directions = get_reference_directions("energy", objectives, population, seed=1)
        if name == "moea/d":
            return MOEAD(directions, n_neighbors=min(15, population), **whole)
        if name == "c-taea":
            return CTAEA(ref_dirs=directions, **whole)
        return UNSGA3(directions, pop_size=population, **whole)
    if name == "age-moea":
        try:
            from pymoo.algorithms.moo.age import AGEMOEA
        except Exception as error:  # pymoo's own check for numba, which is no ImportError
            raise MissingExtra("numba", "kernels", "AGE-MOEA") from error
        return AGEMOEA(pop_size=population, eliminate_duplicates=True, **whole)
    kind = GA if name == "ga" else NSGA2
    return kind(pop_size=population, eliminate_duplicates=True, **whole)
