"""How the methods of a comparison stand: their rows, the front, the best of them and why."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from netwright.app import words
from netwright.app.candidates.choose import choose
from netwright.app.candidates.control import CONTROL
from netwright.app.candidates.run import ORIGINAL
from netwright.app.deployment import Deployment
from netwright.app.feeding.seen import Seen
from netwright.core.budget import Budget, Target
from netwright.core.errors import BadInput
from netwright.core.files.export import Exported, export
from netwright.core.files.facts import signature_for
from netwright.core.study.study import Row, Study, best, done, pareto
from netwright.core.task import Task


class Standings:
    """The rows of a comparison, and what follows from them."""

    def __init__(
        self, goal: str, study: Study, task: Task, budget: Budget,
        scratch: tempfile.TemporaryDirectory[str] | None = None, seen: Seen | None = None, late: Sequence[str] = (),
        deployment: Deployment = Deployment(),  # noqa: B008  frozen
    ) -> None:  # fmt: skip
        self.deployment = deployment  # in which the networks were timed
        self.goal, self.study, self.task, self.budget = goal, study, task, budget
        self.seen = seen or Seen()  # warnings about the rows that judge, for people, and their figures
        self.late = list(late)  # labels of the methods that were not tried, for want of time
        self._scratch = scratch  # the folder lives as long as this does

    @property
    def rows(self) -> list[Row]:
        """A flat dict per method tried (app/candidates/run.py and timing.py name the figures)."""
        return [row for row in self.study.rows if row["slug"] not in (ORIGINAL, CONTROL)]

    @property
    def original(self) -> Row | None:
        """The given network's row; None for goals that change nothing."""
        return next((row for row in self.study.rows if row["slug"] == ORIGINAL), None)

    @property
    def control(self) -> Row | None:
        """compress, where a method trains: the given network, trained on for as long as a method may take."""
        return next((row for row in self.study.rows if row["slug"] == CONTROL), None)

    @property
    def axes(self) -> tuple[str | None, str | None]:
        """The figure to minimise and the one to maximise."""
        return {
            "compress": ("onnx_latency_ms", self.task.primary),
            "calibrate": ("nll", self.task.primary),
            "adapt": ("method_seconds", self.task.primary),
            "train": ("method_seconds", self.task.primary),
            "explain": ("deletion", "insertion"),
            "verify": ("seconds", "certified"),
        }.get(self.goal, (None, None))

    @property
    def pareto(self) -> list[Row]:
        """The rows that no other beats in both of the goal's figures."""
        low, high = self.axes
        if low is None or high is None:
            return []
        return pareto(self.rows, [low], [high])

    @property
    def best(self) -> Candidate | None:
        """compress: what answers the budget's target best (without one: the fastest within a point of the
        original). calibrate: the lowest negative log likelihood. adapt, train: the highest metric.
        None where nothing served or no calibration is better than none, and for goals that give no network."""
        row, _ = self._chosen()
        return None if row is None else Candidate(self.study, self.task, row)

    @property
    def why_best(self) -> str:
        """Why `best` is the best, in words; '' where there is none."""
        return self._chosen()[1]

    def _chosen(self) -> tuple[Row | None, str]:
        original, metric = self.original, self.task.primary
        if original is None:
            return None, ""
        if self.goal == "compress":
            target = self.budget.target
            if target == Target():
                target = dataclasses.replace(target, max_drop=0.01)
            choice = choose(self.rows, original, target, metric, self.examples)
            return choice.row, "" if choice.row is None else choice.why[choice.row["key"]]
        figure = "nll" if self.goal == "calibrate" and "nll" in original else metric
        if figure == "nll":
            row = best([original, *self.rows], minimise="nll")
            said = "the lowest negative log likelihood"
        else:
            row = best(self.rows, maximise=metric)
            said = f"the highest {words.NAMES[metric]}"
        if row is None or row is original:
            return None, ""
        ties = [
            r["label"]
            for r in done(self.rows, [figure])
            if r["key"] != row["key"] and r[figure] == row[figure]
        ]
        return row, said + (
            f"; a tie with {words.listed(ties)}, of which the first is starred" if ties else ""
        )

    @property
    def examples(self) -> int:
        """How many validation examples the rows are judged on."""
        count = len(self.task.val)
        return count - count // 2 if self.goal == "calibrate" else count

    def network(self, slug: str) -> nn.Module:
        """The candidate of the first row of this method, or 'original'."""
        for row in self.study.rows:
            if row["slug"] == slug and row["status"] == "done":
                return self.study.network(row["key"])
        raise BadInput(f"'{slug}' gave no network here")

    def to_json(self) -> dict[str, Any]:
        chosen = self.best
        return {
            "goal": self.goal, "task": self.task.name, "original": self.original, "control": self.control,
            "rows": self.rows,
            "pareto": [row["key"] for row in self.pareto], "best": None if chosen is None else chosen.row["key"],
            "warnings": list(self.seen.warnings), "data": self.seen.figures,
            "not_tried": self.late, "deployment": dataclasses.asdict(self.deployment),
        }  # fmt: skip


class Candidate:
    """One trial's network, on disk until it is asked for."""

    def __init__(self, study: Study, task: Task, row: Row) -> None:
        self._study, self._task, self.row = study, task, row

    @property
    def label(self) -> str:
        return self.row["label"]

    @property
    def figures(self) -> Mapping[str, float]:
        return {name: value for name, value in self.row.items() if isinstance(value, float)}

    @property
    def network(self) -> nn.Module:
        return self._study.network(self.row["key"])

    def export(self, path: str | Path) -> Exported:
        """Write .onnx or .pt2; the task's normalisation goes in front, so the file takes the data as they are."""
        task = self._task
        given = next((row for row in self._study.rows if row["slug"] == ORIGINAL), self.row)
        signature = signature_for(self._study.network(given["key"]), task)
        return export(self.network, task.raw().example(2), path, task.front, signature=signature)

    def __repr__(self) -> str:
        return f"Candidate({self.label})"
