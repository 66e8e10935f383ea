"""The map: temperatures by densities, with the regime of each and what it advises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from netwright.compress.three_regime.heat import Heat, Knob
from netwright.compress.three_regime.pairs import ADVICE, Cuts, pruned
from netwright.core import progress
from netwright.core.budget import Budget, time_left
from netwright.core.errors import BadInput
from netwright.core.finding import Found
from netwright.core.fit import Fit
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised

PAPER = Fit(epochs=160, batch_size=64, optimiser="sgd", lr=0.1, weight_decay=1e-4, schedule="steps")


@dataclass(frozen=True)
class Regimes:
    """Train dense networks at several temperatures, prune each to several densities, say in which regime each cell is.

    A Three-regime Model of Network Pruning (arXiv 2305.18383). A cell's dense network is pruned at once, the same share
    of every layer by magnitude, and trained again from its weights with every one of `seeds`. Two of these are
    connected where the error on the line between them is no higher than at its ends, and similar where their outputs
    are, by linear CKA. Regime I, a barrier: train hotter. II-A, connected but not similar: train colder. II-B: stay.

    knob, values: what changes the temperature (heat.py). recipe: of dense networks; the paper's, for CIFAR. retrain: of
    pruned ones; None for the recipe. points: on a line. examples: for statistics and CKA. barrier,
    similar: where regimes part (`Cuts`).

    __call__(network, task) -> Found, a row per cell; the architecture is the network's, weights are new ones, the same
    for all temperatures. Nothing is chosen by test data; a row's error is measured on them. The time that is set around
    it (`within`) ends it after a temperature.
    """

    knob: Knob = "epochs"
    values: tuple[float, ...] = (10.0, 20.0, 40.0, 80.0, 160.0)
    densities: tuple[float, ...] = (0.05, 0.06, 0.07, 0.08, 0.1, 0.14, 0.2, 0.4, 0.8)
    recipe: Fit = PAPER
    retrain: Fit | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    points: int = 11
    examples: int = 1024
    barrier: float = 0.01
    similar: float = 0.9
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task) -> Found:
        check(self.densities, self.seeds, self.points)
        heats = sorted((Heat(self.knob, value) for value in self.values), key=lambda heat: heat.hotness)
        rows: list[dict[str, Any]] = []
        for done, heat in enumerate(heats, 1):
            dense = reinitialised(network, self.seed)
            heat.train(dense, task, self.recipe, Budget())
            rows += [self.cell(dense, heat, density, task) for density in self.densities]
            progress.step(done, len(heats), f"{self.knob} {heat.value:g}")
            if time_left() <= 0:
                break
        return found(rows, self.knob)

    def cell(self, dense: nn.Module, heat: Heat, density: float, task: Task) -> dict[str, Any]:
        run = lambda training: training(Budget())
        made = pruned(
            dense, task, density, self.retrain or self.recipe, self.seeds, run, self.points, self.examples
        )
        regime = Cuts(self.barrier, self.similar).regime(made.lmc, made.cka)
        return {
            "temperature": heat.value, "hotness": heat.hotness, "density": density, "error": made.error(task, "test"),
            "lmc": made.lmc, "cka": made.cka, "regime": regime, "advice": ADVICE[regime],
        }  # fmt: skip


def check(densities: Sequence[float], seeds: Sequence[int], points: int) -> None:
    if not densities or not all(0 < density <= 1 for density in densities):
        raise BadInput(f"densities lie above 0 and at most at 1, not {tuple(densities)}")
    if len(seeds) < 2 or points < 3:
        raise BadInput(
            "two networks at least are compared, at three points of the line between them at least"
        )


def right(rows: list[dict[str, Any]]) -> float:
    """Share of the cells whose advice leads to where the error is no higher: for 'hotter' the best of the hotter
    temperatures at this density has no higher an error than the cell's own, for 'colder' the best of the colder ones,
    for 'as it is' no other is better by more than a point. Cells that are told to go beyond the ends are left out."""
    judged = []
    for row in rows:
        same = [r for r in rows if r["density"] == row["density"]]
        hotter = [r["error"] for r in same if r["hotness"] > row["hotness"]]
        colder = [r["error"] for r in same if r["hotness"] < row["hotness"]]
        if row["advice"] == "as it is":
            judged.append(min(r["error"] for r in same) >= row["error"] - 0.01)
        else:
            there = hotter if row["advice"] == "hotter" else colder
            if there:  # nothing was tried beyond the hottest and the coldest
                judged.append(min(there) <= row["error"])
    return sum(judged) / len(judged) if judged else float("nan")


def found(rows: list[dict[str, Any]], knob: str) -> Found:
    best = {}
    for density in sorted({row["density"] for row in rows}):
        best[density] = min((r for r in rows if r["density"] == density), key=lambda r: r["error"])
    least, most = min(best), max(best)
    count = lambda regime: sum(row["regime"] == regime for row in rows)
    figures = {
        "cells": float(len(rows)), **{f"cells in {r}": float(count(r)) for r in ADVICE},
        "advice that leads to no higher error": right(rows),
        **{f"best {knob} at {100 * d:g} % of the weights": row["temperature"] for d, row in best.items()},
    }  # fmt: skip
    sentence = (
        f"At {100 * least:g} % of the weights the best {knob} are {best[least]['temperature']:g} (error "
        f"{100 * best[least]['error']:.1f} %), at {100 * most:g} % they are {best[most]['temperature']:g} "
        f"({100 * best[most]['error']:.1f} %); of {len(rows)} cells {count('I')} lie behind a barrier, {count('II-A')} "
        f"are connected but not alike, {count('II-B')} are both"
    )
    return Found("three-regime", sentence, figures, rows, lambda: draw(rows, knob))


def draw(rows: list[dict[str, Any]], knob: str) -> Any:
    """Errors as colours, regimes as letters."""
    import plotly.graph_objects as go

    temperatures = list(dict.fromkeys(row["temperature"] for row in rows))
    densities = sorted({row["density"] for row in rows})
    at = {(row["temperature"], row["density"]): row for row in rows}
    pick = lambda key: [[at[t, d][key] for d in densities] for t in temperatures]
    figure = go.Figure(
        go.Heatmap(
            z=pick("error"), x=[f"{100 * d:g} %" for d in densities], y=[f"{t:g}" for t in temperatures],
            text=pick("regime"), texttemplate="%{text}", colorbar={"title": "error"}, colorscale="Viridis",
        )
    )  # fmt: skip
    figure.update_layout(template="plotly_white", xaxis={"title": "weights kept"}, yaxis={"title": knob})
    return figure
