"""LINAS: the Pareto front of an integer-coded space with few real measurements.

"A Hardware-Aware System for Accelerating Deep Neural Network Optimization" (DyNAS-T), arXiv 2202.12954.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from netwright.core import progress
from netwright.core.budget import Budget, Meter
from netwright.core.contracts import Space
from netwright.core.errors import BadInput
from netwright.core.task import Task
from netwright.search.linas.evolution import nsga2
from netwright.search.linas.surrogate import Surrogate, one_hot
from netwright.search.parts.archive import Archive, front


@dataclass(frozen=True)
class LINAS:
    """Measure a population, refit the predictors on all measurements, search on the predictions, measure again.

    population: choices measured per round, the first round at random. measurements: in all. evaluations: of the
    predictors per round, by NSGA-II (crossover 0.9, eta 15; mutation 0.02 per gene, eta 20; rounding). One predictor
    per objective, ridge regression or support vectors on one-hot genes, chosen by cross-validation at each refit.
    start: choices that the first population begins with.

    Returns an `Archive`: a sequence of the candidates on the measured front, with the log of everything measured.
    The budget's seconds end it at the next measurement.

    Where we differ from the authors' code: a choice is never measured twice; inactive genes are masked; the inner
    search starts from the measured front, as the code means to but by a slip does not; a round whose population
    is known already, but for less than a fifth, is filled up to that with unknown choices at random. Measurements run
    one after the other.
    """

    population: int = 50
    measurements: int = 250
    evaluations: int = 20_000
    seed: int = 0
    start: tuple[tuple[int, ...], ...] = ()

    def __call__(self, space: Space, task: Task, budget: Budget) -> Archive:
        if self.population < 2 or self.measurements < 1:
            raise BadInput("a population needs 2 choices and a search 1 measurement")
        archive, meter = Archive(space, task), budget.start()
        rng = np.random.default_rng(self.seed)
        limit = min(self.measurements, archive.size)
        batch = [np.asarray(codes) for codes in self.start]
        batch += self._unknown(archive, self.population - len(batch), rng)
        round_ = 0
        while True:
            stopped = self._measure(archive, batch, round_, limit, meter)
            if stopped or len(archive.log) >= limit:
                return archive
            round_ += 1
            batch = [row for row in self._propose(archive, round_) if not archive.knows(row)]
            batch += self._unknown(archive, max(1, self.population // 5) - len(batch), rng)
            if not batch:  # inactive genes: fewer choices differ than there are codes
                return archive

    def _measure(
        self, archive: Archive, batch: list[np.ndarray], round_: int, limit: int, meter: Meter
    ) -> bool:
        """Measure until the batch, the limit or the budget ends; True if it was the budget."""
        for codes in batch:
            if archive.log and meter.exhausted:
                return True
            if len(archive.log) >= limit:
                return False
            archive.measure(codes, round_)
            progress.step(len(archive.log), limit, f"round {round_}: {len(archive)} on the front")
        return False

    def _propose(self, archive: Archive, round_: int) -> np.ndarray:
        """The last population of NSGA-II on the predictors."""
        codes, values = archive.codes, archive.values
        x = one_hot(codes, archive.sizes)
        predictors = [Surrogate(seed=self.seed).fit(x, values[:, j]) for j in range(values.shape[1])]

        def predict(rows: np.ndarray) -> np.ndarray:
            masked = np.array([archive.canonical(row) for row in rows])
            features = one_hot(masked, archive.sizes)
            return np.stack([p.predict(features) for p in predictors], 1)

        return nsga2(
            archive.sizes, values.shape[1], predict, population=self.population, evaluations=self.evaluations,
            seed=self.seed + 1000 * round_, start=codes[front(values)].clip(0),
        )  # fmt: skip

    def _unknown(self, archive: Archive, count: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Up to `count` different choices at random that have not been measured."""
        found: dict[tuple[int, ...], np.ndarray] = {}
        for codes in _at_random(archive, count, rng):
            if len(found) >= count:
                break
            if not archive.knows(codes):
                found.setdefault(archive.canonical(codes), codes)
        return list(found.values())


def _at_random(archive: Archive, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Codes in random order: all of a small space, enough tries in one too large to be listed."""
    if archive.size <= 10_000:
        for index in rng.permutation(archive.size):
            yield np.array(np.unravel_index(index, archive.sizes))
    else:
        for _ in range(100 * max(0, count)):
            yield rng.integers(0, archive.sizes)
