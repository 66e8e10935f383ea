"""A search space over one trained network: how much of each group of units to keep."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.files.export import export
from netwright.core.graph import Group, dependencies, prune, trace
from netwright.core.graph.importance import taylor
from netwright.core.measure.cost import latency, macs, stored_bytes
from netwright.core.metrics import outputs_of, score
from netwright.core.network import as_tuple, device_of, move
from netwright.core.split import take
from netwright.core.task import Task
from netwright.core.weights.recalibrate import recalibrate

CostName = Literal["latency", "macs", "bytes"]

SCORE_BATCH = (
    16  # the mean gradient of a large batch vanishes in a trained network and tells units apart badly
)


@dataclass(eq=False)
class PruningSpace:
    """Genes: the groups of units that can be removed; values: the share of units that stays.

    A choice is measured without training: the least important units go (Taylor importance, taken once on
    `scored` training examples), batch norms are recalibrated on `recalibrated` training examples, and the error (1 -
    the task's primary metric) is taken on at most `samples` validation examples. Costs are fractions of the given
    network's: 'latency' is measured in ONNX Runtime, one thread, in turn with the original; 'macs' and 'bytes' are
    counted.

    ratios: shares of units that may stay, the last must be 1. round_to: counts are multiples of it in groups of at
    least twice as many units; shares that then come to the same count are one value. Raises NotApplicable where no
    unit can go or the network cannot be exported.
    """

    network: nn.Module
    task: Task
    costs: tuple[CostName, ...] = ("latency",)
    ratios: tuple[float, ...] = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
    round_to: int = 8
    samples: int = 512
    recalibrated: int = 256
    scored: int = 512
    seed: int = 0
    genes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        if (
            not self.costs
            or sorted(self.ratios) != list(self.ratios)
            or self.ratios[0] <= 0
            or self.ratios[-1] != 1
        ):
            raise BadInput("a pruning space needs a cost, and ratios that rise from above 0 to 1")
        self.example = as_tuple(move(self.task.example(2), device_of(self.network)))
        normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.network.modules())
        self.recalibrated = min(self.recalibrated, len(self.task.train)) if normed else 0
        self.scored = min(self.scored, len(self.task.train))
        self.samples = min(self.samples, len(self.task.val))
        self._found = dependencies(trace(self.network, self.example))
        self.groups = [group for group in self._found.groups if group.size > 1]
        if not self.groups:
            reason = next(iter(self._found.blocked.values()), "it has no layer between input and output")
            raise NotApplicable(f"no unit of this network can be removed: {reason}")
        self._counts = {g.name: sorted({self._count(g, r) for r in self.ratios}) for g in self.groups}
        self.genes = {name: len(counts) for name, counts in self._counts.items()}
        scores = taylor(
            self.network, self.groups, self.task, self.scored, SCORE_BATCH, self.seed, Budget().start()
        )
        self._ranked: dict[str, Tensor] = {n: s.argsort(descending=True) for n, s in scores.items()}
        self._val = take(self.task.val, self.samples, seed=self.seed)
        self._macs, self._bytes = macs(self.network, self._one), stored_bytes(self.network)
        self._folder = tempfile.TemporaryDirectory(prefix="netwright-")
        self._original: Path | None = None

    @property
    def _one(self) -> tuple[Tensor, ...]:
        return tuple(t[:1] for t in self.example)

    def keep(self, choice: Mapping[str, int]) -> dict[str, Tensor]:
        """Group name -> units that stay."""
        return {
            name: self._ranked[name][: counts[choice[name]]].sort().values
            for name, counts in self._counts.items()
        }

    def _count(self, group: Group, ratio: float) -> int:
        count = max(1, round(ratio * group.size))
        if count < group.size and group.size >= 2 * self.round_to:
            count = max(self.round_to, self.round_to * round(count / self.round_to))
        return min(count, group.size)

    def build(self, choice: Mapping[str, int]) -> nn.Module:
        """The smaller network, batch norms recalibrated, not fine-tuned."""
        small = prune(self.network, self.example, self.keep(choice), self._found)
        recalibrate(small, self.task.train, self.recalibrated, seed=self.seed)
        return small.eval()

    def measure(self, choice: Mapping[str, int], task: Task) -> dict[str, float]:
        """Error and the costs."""
        small = self.build(choice)
        outputs, targets = outputs_of(small, self._val)
        error = 1 - score(outputs, targets, task.kind)[task.primary]
        return {"error": error} | {cost: self.cost(small, cost) for cost in self.costs}

    def cost(self, network: nn.Module, name: CostName) -> float:
        """A cost of a network as a fraction of the original's."""
        if name == "macs":
            return macs(network, self._one) / max(1, self._macs)
        if name == "bytes":
            return stored_bytes(network) / max(1, self._bytes)
        folder = Path(self._folder.name)
        if self._original is None:
            self._original = export(self.network, self._one, folder / "original.onnx").path
        candidate = export(network, self._one, folder / "candidate.onnx").path
        return latency([self._original, candidate], self._one, rounds=40, seconds=1.0).ratio[1]

    def uniform(self, ratio: float) -> tuple[int, ...]:
        """The choice that keeps this one of `ratios` of every group."""
        return tuple(self._counts[g.name].index(self._count(g, ratio)) for g in self.groups)
