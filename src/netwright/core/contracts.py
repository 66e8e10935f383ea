"""What a method is. Each is a frozen dataclass whose fields are its hyper-parameters; calling it does the work.

All of them: seeded (a field `seed` where chance plays a part) and repeatable; on the device of the network's
parameters; honour the budget; report progress through `core.progress`; raise `NotApplicable("why")` for what
they cannot serve; never print; never change the network that they are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from netwright.core.budget import Budget
from netwright.core.network import Inputs
from netwright.core.split import Split
from netwright.core.task import Task


@runtime_checkable
class Transform(Protocol):
    """compress, calibrate, adapt, train: a new network for the same task."""

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module: ...


@runtime_checkable
class Finding(Protocol):
    """What an analysis found. sentence: that in plain words, with its main figure."""

    figures: Mapping[str, float]
    sentence: str

    def table(self) -> list[dict[str, Any]]:
        """Rows for people and for data frames."""
        ...

    def plot(self) -> Any:
        """A plotly figure."""
        ...

    def to_json(self) -> dict[str, Any]: ...


@runtime_checkable
class Analysis(Protocol):
    """inspect: what happens inside. Some compare two networks, (network, other, data)."""

    def __call__(self, network: nn.Module, data: Split) -> Finding: ...


@dataclass(frozen=True, repr=False)
class Explanation:
    """Attribution of a batch: (B, H, W) for images, else the shape of the input without channels.

    scores: faithfulness figures by name, one value per example.
    """

    attribution: Tensor
    target: Tensor
    method: str
    scores: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        means = (f"{name} {values.double().mean().item():.3g}" for name, values in self.scores.items())
        shape = " x ".join(map(str, self.attribution.shape))
        return f"Explanation({', '.join([f'{self.method}: {shape}', *means])})"


@runtime_checkable
class Explainer(Protocol):
    """explain: why this output. `target` (B,) are the classes in question, default the predicted ones."""

    def __call__(self, network: nn.Module, inputs: Inputs, target: Tensor | None = None) -> Explanation: ...


@dataclass(frozen=True)
class Box:
    """Property: for each example, the outputs keep `label` on top for every input in [lower, upper].

    lower, upper: (B, ...) inputs' bounds; label: (B,) classes.
    """

    lower: Tensor
    upper: Tensor
    label: Tensor


Answer = Literal["holds", "violated", "unknown"]


@dataclass(frozen=True, repr=False)
class Verdict:
    """Per example: the answer, a lower bound of the margin over every other class, and a checked counterexample.

    margin: (B,) lower bound of min over k != label of output[label] - output[k] (positive: proved).
    counterexample: (B, ...) inputs; rows matter only where the answer is 'violated'.
    """

    answers: Sequence[Answer]
    margin: Tensor
    counterexample: Tensor | None = None

    def count(self, answer: Answer) -> int:
        return sum(a == answer for a in self.answers)

    def __repr__(self) -> str:
        said = ", ".join(f"{n} {a}" for a in ("holds", "violated", "unknown") if (n := self.count(a)))
        return f"Verdict({said or 'no examples'})"


@runtime_checkable
class Verifier(Protocol):
    """verify: what can be proved, or broken. One that can only break says so: proves = False."""

    def __call__(self, network: nn.Module, property: Box, budget: Budget) -> Verdict: ...


@dataclass(frozen=True)
class Candidate:
    """One point of a search: the choice (gene -> value), its measured objectives, and its network if it was kept."""

    choice: Mapping[str, Any]
    objectives: Mapping[str, float]
    network: nn.Module | None = None


@runtime_checkable
class Space(Protocol):
    """Integer genes with their numbers of values, and how a choice is measured."""

    genes: Mapping[str, int]

    def measure(self, choice: Mapping[str, int], task: Task) -> Mapping[str, float]:
        """Objectives by name, all to be minimised."""
        ...


@runtime_checkable
class Searcher(Protocol):
    """search: candidates on a Pareto front, with a log of everything that was measured."""

    def __call__(self, space: Space, task: Task, budget: Budget) -> Sequence[Candidate]: ...


@runtime_checkable
class Predictor(Protocol):
    """A score of a network without training it."""

    def __call__(self, network: nn.Module) -> float: ...


@runtime_checkable
class Model(Protocol):
    """An architecture, built by shape (C, H, W) or (T, F), number of outputs and size (parameters aimed at)."""

    def build(self, shape: tuple[int, ...], classes: int, size: int | None = None) -> nn.Module: ...
