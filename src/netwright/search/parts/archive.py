"""Everything that a search measured, in order, and the front of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from pymoo.indicators.hv import HV
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from netwright.core.contracts import Candidate, Space
from netwright.core.errors import BadInput, NetwrightError
from netwright.core.task import Task

INACTIVE = -1


def front(values: np.ndarray) -> np.ndarray:
    """Indices of the rows of (N, M), all minimised, that no other row dominates; in order of the first objective."""
    best = NonDominatedSorting().do(np.asarray(values, dtype=float), only_non_dominated_front=True)
    return np.asarray(sorted(best, key=lambda i: tuple(values[i])))


def hypervolume(values: np.ndarray, reference: np.ndarray) -> float:
    """Volume dominated by the rows of (N, M) and bounded by the reference point (M,), all minimised."""
    values = np.asarray(values, dtype=float)
    return float(HV(ref_point=np.asarray(reference, dtype=float))(values)) if len(values) else 0.0


@dataclass(frozen=True)
class Measurement:
    """One row of the log: the round of the search it belongs to, what was measured and how long it took."""

    round: int
    choice: tuple[int, ...]
    objectives: dict[str, float]
    seconds: float


@dataclass
class Archive(Sequence[Candidate]):
    """A sequence of the candidates on the front; `log` holds all measurements, in order, none twice.

    What is measured once is never measured again: a choice that comes again costs nothing and is not logged. Genes
    that a space declares inactive for a choice (its optional `inactive(choice)` -> names) have the code INACTIVE,
    which is none of their values: an active 0 is another choice. The space is asked with 0 for them.
    """

    space: Space
    task: Task
    log: list[Measurement] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.genes = list(self.space.genes)
        self.sizes = np.array([self.space.genes[g] for g in self.genes])
        if not self.genes or (self.sizes < 1).any():
            raise BadInput("a search space needs genes, each with at least one value")
        self._known: dict[tuple[int, ...], int] = {}

    @property
    def size(self) -> int:
        """How many choices there are."""
        return int(np.prod(self.sizes.astype(object)))

    def canonical(self, codes: Sequence[int]) -> tuple[int, ...]:
        """The choice with inactive genes at INACTIVE."""
        choice = self.named(codes)
        inactive = getattr(self.space, "inactive", None)
        off = set(inactive(choice)) if inactive is not None else set()
        return tuple(INACTIVE if g in off else choice[g] for g in self.genes)

    def knows(self, codes: Sequence[int]) -> bool:
        return self.canonical(codes) in self._known

    def measure(self, codes: Sequence[int], round_: int) -> np.ndarray:
        """Objectives (M,) of a choice, measured unless it is known."""
        key = self.canonical(codes)
        if key not in self._known:
            start = time.perf_counter()
            found: Mapping[str, float] = self.space.measure(self.named(key), self.task)
            objectives = {name: float(value) for name, value in found.items()}
            if not all(np.isfinite(v) for v in objectives.values()):
                raise NetwrightError(f"the space measured {objectives} for {self.named(key)}; not finite")
            self._known[key] = len(self.log)
            self.log.append(Measurement(round_, key, objectives, time.perf_counter() - start))
        return np.array(list(self.log[self._known[key]].objectives.values()))

    def named(self, codes: Sequence[int]) -> dict[str, int]:
        """The choice as a space takes it: inactive genes at 0."""
        return {g: max(0, int(c)) for g, c in zip(self.genes, codes, strict=True)}

    @property
    def codes(self) -> np.ndarray:
        """All measured choices (N, genes), in order."""
        return np.array([m.choice for m in self.log], dtype=int).reshape(len(self.log), len(self.genes))

    @property
    def values(self) -> np.ndarray:
        """Their objectives (N, M)."""
        return np.array([list(m.objectives.values()) for m in self.log])

    def hypervolumes(self, reference: np.ndarray) -> list[float]:
        """Hypervolume of what was MEASURED after 1, 2, .. N measurements."""
        values = self.values
        return [hypervolume(values[: i + 1], reference) for i in range(len(values))]

    def _front(self) -> list[Candidate]:
        if not self.log:
            return []
        return [
            Candidate(self.named(self.log[i].choice), dict(self.log[i].objectives))
            for i in front(self.values)
        ]

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> list[Candidate]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._front()[index]

    def __len__(self) -> int:
        return len(self._front())
