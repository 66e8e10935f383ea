"""The eight operators side by side on the owner's networks, by the benchmark's tracks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netwright.compress.bibench.corruptions import CORRUPTIONS, Corruption
from netwright.compress.bibench.method import BiBench
from netwright.compress.parts.binary import OPERATORS, counts
from netwright.core import progress
from netwright.core.budget import Budget, in_time
from netwright.core.errors import BadInput
from netwright.core.finding import Found
from netwright.core.fit import Fit
from netwright.core.measure.latency import latency
from netwright.core.metrics import outputs_of, score
from netwright.core.network import Inputs, call, clone, device_of, evaluating, move, parameter_count
from netwright.core.split import Split, take
from netwright.core.task import Task

Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A trained network that operators are put into. architecture: a name for its kind."""

    architecture: str
    network: nn.Module
    task: Task


@dataclass(frozen=True)
class Tracks:
    """Every operator on every subject, beside the float network: subjects to a Found, a row for each operator.

    BiBench's six tracks (arXiv 2301.11233), of which the first three are quadratic means of ratios, the metric with
    signs over that of the float network: over `task`s, over `architecture`s, over five `corruption`s of the test data
    (corruptions.py); each first averaged over what else varies. `training`: seconds of a step over those of the float
    network, and the deviation of the ratio over learning `rates`. `complexity`: parameters (32 signs count as one real
    number) and multiply-accumulates (64 as one) over what is left of them. `inference`: measured on this processor,
    PyTorch, one example, in turn with the float network.

    epochs, batch_size: of each training, from the subject's weights; the first of `rates` is the recipe's, and the
    others count for the deviation alone. examples: of the test split, for corruptions. The time that is set around it
    (`within`) ends it after an operator has been tried on all subjects.
    """

    operators: tuple[str, ...] = tuple(OPERATORS)
    epochs: float = 10
    batch_size: int = 128
    rates: tuple[float, ...] = (1e-3, 3e-3)
    seeds: tuple[int, ...] = (0,)
    examples: int = 1000
    rounds: int = 30

    def __call__(self, *subjects: Subject) -> Found:
        if unknown := [name for name in self.operators if name not in OPERATORS]:
            raise BadInput(f"no operator named '{unknown[0]}'; use {', '.join(OPERATORS)}")
        if not (subjects and self.operators and self.rates and self.seeds):
            raise BadInput("the tracks need a subject, an operator, a learning rate and a seed")
        floats = [self._float(subject) for subject in subjects]
        rows: list[Row] = []
        for done, operator in enumerate(in_time(self.operators), 1):
            for subject, whole in zip(subjects, floats, strict=True):
                for seed in self.seeds:
                    rows += self._tried(operator, subject, whole, seed)
            progress.step(done, len(self.operators), operator)
        return found(rows)

    def _float(self, subject: Subject) -> Row:
        """The float network's scores, and the seconds that its training takes."""
        fit = Fit(
            epochs=min(self.epochs, 1.0), batch_size=self.batch_size, lr=self.rates[0], weight_decay=0.0
        )
        began = time.process_time()
        fit(clone(subject.network), subject.task)
        return {
            "seconds": (time.process_time() - began) / fit.epochs,
            **self._scores(subject.network, subject.task),
        }

    def _tried(self, operator: str, subject: Subject, whole: Row, seed: int) -> list[Row]:
        """A row for each rate."""
        rows = []
        for rate in self.rates:
            method = BiBench(operator, self.epochs, self.batch_size, rate, seed)  # type: ignore[arg-type]
            began = time.process_time()
            made = method(subject.network, subject.task, Budget())
            seconds = (time.process_time() - began) / self.epochs
            ratios = {k: v / max(whole[k], 1e-9) for k, v in self._scores(made, subject.task).items()}
            rows.append(
                {
                    "operator": operator, "architecture": subject.architecture, "task": subject.task.name,
                    "seed": seed, "rate": rate, "recipe": rate == self.rates[0], **ratios,
                    "training": seconds / whole["seconds"], **complexity(subject.network, made, subject.task),
                }
            )  # fmt: skip
        one = tuple(t[:1] for t in subject.task.example(1))
        rows[0]["inference"] = latency([subject.network, made], one, "torch", rounds=self.rounds).faster[1]
        return rows

    def _scores(self, network: nn.Module, task: Task) -> dict[str, float]:
        """On test data as they are ('clean') and corrupted."""
        some = take(task.test, self.examples, 0)
        clean = score(*outputs_of(network, task.test), task.kind)[task.primary]
        made = {n: corrupted(network, some, c, task) for n, c in CORRUPTIONS.items()}
        return {"clean": clean, **made}


def corrupted(network: nn.Module, split: Split, corruption: Corruption, task: Task) -> float:
    """The task's metric on inputs of which the first is corrupted."""
    generator = torch.Generator().manual_seed(0)
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    with evaluating(network), torch.no_grad():
        for inputs, wanted in split.batches(500):
            outputs.append(
                call(network, move(_worse(inputs, corruption, generator), device_of(network))).cpu()
            )
            targets.append(wanted)
    return score(torch.cat(outputs), torch.cat(targets), task.kind)[task.primary]


def _worse(inputs: Inputs, corruption: Corruption, generator: torch.Generator) -> Inputs:
    if isinstance(inputs, tuple):
        return (corruption(inputs[0], generator), *inputs[1:])
    return corruption(inputs, generator)


def complexity(network: nn.Module, made: nn.Module, task: Task) -> dict[str, float]:
    """By how much parameters and multiply-accumulates fall: 32 signs count as one real parameter, 64 products of signs
    as one of floats."""
    signs, products, every = counts(made, task.example(1))
    whole = parameter_count(network)
    return {
        "smaller": whole / (signs / 32 + whole - signs),
        "fewer": every / (products / 64 + every - products),
    }


def overall(ratios: Iterable[float]) -> float:
    """The quadratic mean, by which the benchmark puts ratios together."""
    values = list(ratios)
    return math.sqrt(sum(v * v for v in values) / len(values))


def found(rows: Sequence[Row]) -> Found:
    """rows: one for each operator, subject, seed and rate."""
    shown = [tracks(operator, rows) for operator in dict.fromkeys(row["operator"] for row in rows)]
    best = max(shown, key=lambda row: row["task"])
    figures = {
        f"{track}, {row['operator']}": value
        for row in shown for track, value in row.items() if track != "operator"
    }  # fmt: skip
    sentence = (
        f"Of {len(shown)} operators {best['operator']} keeps most, {100 * best['task']:.1f} % of what the float "
        f"networks reach (on corrupted data {100 * best['corruption']:.1f} %), with {best['parameters']:.1f} times "
        f"fewer parameters, {best['inference']:.2f} times as fast on one example."
    )
    return Found("bibench", sentence, figures, shown, lambda: draw(shown), {"rows": list(rows)})


def tracks(operator: str, rows: Sequence[Row]) -> Row:
    """The operator's scores. Rows of the recipe's rate count, but for the deviation over rates."""
    mine = [row for row in rows if row["operator"] == operator]
    recipe = [row for row in mine if row["recipe"]]
    mean = lambda chosen, key: sum(row[key] for row in chosen) / len(chosen)
    by = lambda part, key: [
        mean([r for r in recipe if r[part] == value], key) for value in dict.fromkeys(r[part] for r in recipe)
    ]
    rates = [
        mean([r for r in mine if r["rate"] == rate], "clean")
        for rate in dict.fromkeys(r["rate"] for r in mine)
    ]
    middle = sum(rates) / len(rates)
    return {
        "operator": operator,
        "task": overall(by("task", "clean")),
        "architecture": overall(by("architecture", "clean")),
        "corruption": overall(mean(recipe, name) for name in CORRUPTIONS),
        "training": mean(recipe, "training"),
        "rates": math.sqrt(sum((r - middle) ** 2 for r in rates) / max(1, len(rates) - 1)),
        "parameters": mean(recipe, "smaller"),
        "products": mean(recipe, "fewer"),
        "inference": mean(recipe, "inference"),
    }


def draw(shown: Sequence[Row]) -> Any:
    """The first three tracks of every operator."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for track in ("task", "architecture", "corruption"):
        figure.add_trace(
            go.Bar(name=track, x=[row["operator"] for row in shown], y=[row[track] for row in shown])
        )
    figure.update_layout(template="plotly_white", yaxis={"title": "of the float networks"})
    return figure
