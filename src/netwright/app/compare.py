"""Every method of a goal, side by side on one network and task, on one budget.

The budget is the time of all of it: what is left beside the original's own row and the timing is divided among the
methods in equal parts, and a method that is not done in its part is ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from netwright.app.candidates.beside import hold_beside
from netwright.app.candidates.control import control_trial
from netwright.app.candidates.run import (
    RADIUS,
    Wanted,
    original_trial,
    run_trial,
    trains,
    trials_for,
)
from netwright.app.candidates.timing import time_candidates
from netwright.app.clock import Clock, TimeUp, cut_off
from netwright.app.deployment import Deployment, check_threads
from netwright.app.feeding.opening import as_the_network_wants
from netwright.app.feeding.seen import Seen, look
from netwright.app.report import table
from netwright.app.report.comparison import write
from netwright.app.report.standings import Standings
from netwright.app.screen import View
from netwright.core.budget import Budget, within
from netwright.core.errors import BadInput
from netwright.core.network import device_named, fingerprint
from netwright.core.plural import number_of
from netwright.core.study.processes import Processes, Runner
from netwright.core.study.study import Limits, Listener, Study, Trial, done
from netwright.core.task import Task

TRANSFORMING = ("compress", "calibrate", "adapt", "train")
TEACHING = ("train", "adapt")  # their network need not know the task yet
TRIALS = 0.8  # share of the time that the trials may plan with; the rest is for the original and for timing
_FAREWELL = 2.0  # seconds kept for the table
LEAST = 0.5  # seconds of a method's part, at least
_START = 1.0  # seconds until the first trials have started; one round of them is tried, however late it is


def compare(
    goal: str,
    network: nn.Module,
    task: Task,
    budget: Budget | None = None,
    *,
    methods: Sequence[Wanted] | None = None,
    seed: int = 0,
    radius: float | None = None,
    path: str | Path | None = None,
    jobs: int | None = None,
    progress: Listener | None = None,
    runner: str | Runner = "processes",
    seen: Seen | None = None,
    clock: Clock | None = None,
    as_it_is: bool = False,
    batch: int = 1,
    threads: int = 1,
    device: str = "cpu",
    quiet: bool = False,
) -> Comparison:
    """Try the methods of a goal on a network, each in a worker process of its own.

    budget: its seconds are the time of the WHOLE comparison, divided among the methods in equal parts (those that do
    not train are done in moments and leave theirs to the others); what is not done by then is ended, or not tried,
    and named. Epochs and samples are what EACH method may spend.
    methods: slugs or (slug, settings), default all of the goal.
    radius: verify only, the L-infinity radius around inputs (default: trials.default_radius).
    path: folder for the study (study.db), report.html and compare.json; the same call goes on there where an earlier
    one stopped. None keeps the study in a temporary folder for as long as the result lives.
    progress: called with a trial's label and its news (core/study/study.py); default: shown, as a bar or in lines,
    unless `quiet`. runner: 'processes', 'ray' or 'ray:ADDRESS', or a Runner. Candidates are judged on validation data
    only; what learns from those (calibrate) learns from one half of them and is judged on the other. seen: what is
    known of these rows (app/feeding/seen.py), default: they are looked at, for a network that the user gave. clock:
    one that runs already, such as that of a command that has opened the network; default one for the budget's
    seconds, started now. as_it_is: feed the network as the task has the data, without a look at other ways; otherwise
    one that seems to be fed wrongly is BadInput, or repaired. batch, threads: how the network will be used; latency
    is measured so, for goals that give networks. device: where what trains does so.
    """
    budget = budget or Budget()
    clock = clock or Clock(budget.seconds)
    where = open_runner(runner, device)
    deployment = deployment_for(goal, batch, threads, device)
    trials = trials_for(goal, methods, None, seed)
    if radius is not None:
        trials = with_radius(trials, goal, radius)
    if goal in TRANSFORMING:  # what is done in moments comes first: a small budget has an answer then
        trials.sort(key=trains)
    if goal == "compress" and any(trains(trial) for trial in trials):
        first = sum(not trains(trial) for trial in trials)
        trials.insert(first, control_trial(budget, seed))  # every gain of those behind it is held against it
    if not as_it_is and goal not in TEACHING:
        subject = as_the_network_wants(type(network).__name__, network, task, False, View(quiet=True))
        network, task = subject.network, subject.task
    where.warm()
    known = look(network, task, given=True) if seen is None else seen
    each = part_of(budget, trials, goal, jobs or where.slots())
    trials = [dataclasses.replace(trial, budget=each) for trial in trials]
    scratch = tempfile.TemporaryDirectory(prefix="netwright-") if path is None else None
    folder = Path(scratch.name) if scratch is not None else Path(path or ".")
    elsewhere = {} if device == "cpu" else {"device": device}
    about = question(goal, network, task, budget, seed) | deployment.question | elsewhere
    study = Study(folder / "study.db", about)
    spare, last = 0.0, None if budget.seconds is None else clock.last - _FAREWELL
    if goal in TRANSFORMING:
        rows = study.run(
            [original_trial(budget, goal)], run_trial, network, task, limits=Limits(until=last), runner=where
        )
        if not rows or rows[0]["status"] == "timed out":
            raise BadInput(
                f"the network could not even be measured within {budget.seconds:g} s; give a larger budget"
            )
        if rows[0]["status"] != "done":
            raise BadInput(f"the network cannot be measured on task '{task.name}': {rows[0]['reason']}")
        spare = rows[0]["seconds"]
    until = ended = None
    if last is not None:
        timing = 0.1 * clock.left if goal in TRANSFORMING else 0.0
        ended = last - timing
        until = min(max(clock.end - timing, time.monotonic() + LEAST + spare + _START), ended)
    limits = Limits(until=until, last=ended, spare=spare, least=LEAST)
    view = View(quiet or progress is not None)
    with view.trials(len(trials), clock.end):
        study.run(
            trials, run_trial, network, task, device, limits=limits, jobs=jobs, progress=progress or view.trial,
            runner=where,
        )  # fmt: skip
    if goal in TRANSFORMING:
        seconds = 2.0 if last is None else min(2.0, 0.2 * (last - time.monotonic()) / len(trials))
        moment = math.inf if last is None else last
        left = None if last is None else 0.8 * (last - time.monotonic())
        with contextlib.suppress(TimeUp), cut_off(moment), within(left):
            time_candidates(study, task, deployment, seconds=seconds)
        hold_beside(study, task)
    tried = {row["key"] for row in study.rows}
    late = [trial.label for trial in trials if trial.key not in tried]
    comparison = Comparison(goal, study, task, budget, scratch, known, late, deployment)
    if path is not None:
        write(comparison, folder)
    return comparison


def part_of(budget: Budget, trials: Sequence[Trial], goal: str, jobs: int) -> Budget:
    """What each method may spend of a budget for all. Only those share that will use it."""
    if budget.seconds is None:
        return budget
    training = [t for t in trials if goal not in TRANSFORMING or trains(t)]
    turns = math.ceil(max(1, len(training)) / jobs)
    return dataclasses.replace(budget, seconds=max(LEAST, TRIALS * budget.seconds / turns))


def with_radius(trials: Sequence[Trial], goal: str, radius: float) -> list[Trial]:
    """The trials of verifiers, within another radius."""
    if goal != "verify":
        raise BadInput(f"a radius is for the goal verify, not for {goal}")
    if not 0 <= radius < math.inf:
        raise BadInput(f"{radius:g} is no radius; give a number of 0 or more")
    return [dataclasses.replace(trial, settings={**trial.settings, RADIUS: radius}) for trial in trials]


def deployment_for(goal: str, batch: int, threads: int, device: str = "cpu") -> Deployment:
    """BadInput where the goal gives no networks, so that nothing is timed or trained, or the machine is too small."""
    deployment = Deployment(batch, threads)
    check_threads(deployment)
    if goal not in TRANSFORMING and not (deployment.usual and device == "cpu"):
        raise BadInput(f"batch, threads and device are for goals that give networks, not for {goal}")
    return deployment


def open_runner(runner: str | Runner, device: str = "cpu") -> Runner:
    """Where trials run. device: on which of its devices they train; BadInput, before any work, for one that is not
    there."""
    if isinstance(runner, str):
        kind, _, address = runner.partition(":")
        if kind not in ("processes", "ray"):
            raise BadInput(f"no runner named '{runner}'; use processes, ray or ray:ADDRESS")
        if kind == "ray":
            from netwright.core.study.cluster import Ray

            runner = Ray(address or "local")
        else:
            runner = Processes()
    if device != "cpu":
        if not isinstance(runner, Processes):
            raise BadInput("a device is for trials on this machine; on a Ray cluster they run on processors")
        device_named(device)
    return runner


def question(goal: str, network: nn.Module, task: Task, budget: Budget, seed: int) -> dict[str, str]:
    """What a study is about; it continues only for the same."""
    return {
        "goal": goal, "network": fingerprint(network), "task": task.fingerprint(),
        "budget": json.dumps(dataclasses.asdict(budget), sort_keys=True), "seed": str(seed),
    }  # fmt: skip


class Comparison(Standings):
    """What came of it: a table and a Pareto plot in a notebook, a table in a terminal, rows in a program."""

    def plot(self) -> Any:
        """The Pareto plot (plotly)."""
        return table.pareto_plot(self)

    def __rich__(self) -> Any:
        return table.rich_table(self)

    def _repr_html_(self) -> str:
        return table.html(self)

    def __repr__(self) -> str:
        count, ended = number_of(len(self.rows), "method"), len(done(self.rows, []))
        return f"Comparison({self.goal}: {count}, {ended} served, {self.study.path})"
