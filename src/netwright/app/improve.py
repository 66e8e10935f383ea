"""The main job: measure a network, try methods side by side, apply the winner, calibrate, export, report."""

from __future__ import annotations

import contextlib
import json
import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from netwright.app.candidates import combined, finish, history, plan
from netwright.app.candidates.beside import hold_beside
from netwright.app.candidates.choose import Choice, choose
from netwright.app.candidates.control import CONTROL
from netwright.app.candidates.run import ON, ONNX, ORIGINAL, original_trial, run_trial, told_apart, trains
from netwright.app.candidates.timing import time_candidates
from netwright.app.clock import Clock, TimeUp, cut_off
from netwright.app.compare import open_runner
from netwright.app.deployment import Deployment, check_threads
from netwright.app.feeding.opening import Subject, describe, open_subject
from netwright.app.report import evidence, report, verdict
from netwright.app.report.document import Asked, Found, document, shown, trial_rows
from netwright.app.report.result import Result
from netwright.app.screen import View
from netwright.core.budget import Budget, Target, parse_seconds, within
from netwright.core.errors import BadInput, NetwrightError
from netwright.core.files.checkpoint import atomic, together
from netwright.core.network import fingerprint
from netwright.core.plural import number_of
from netwright.core.study.processes import Runner
from netwright.core.study.study import Limits, Study, Trial
from netwright.core.task import Task

Row = dict[str, Any]
LARGER = "A larger --budget tries more."
REPORT = "report.html"


def improve(
    model: nn.Module | str | None = None,
    task: Task | str = "digits",
    *,
    faster: float | None = None,
    smaller: float | None = None,
    max_drop: float = 0.01,
    budget: str | float = "5m",
    methods: Sequence[str] | None = None,
    seed: int = 0,
    out: str | Path = "netwright-out",
    as_it_is: bool = False,
    batch: int = 1,
    threads: int = 1,
    device: str = "cpu",
    history: bool = True,
    quiet: bool = False,
) -> Result:
    """`netwright improve` for Python: any module, any Task (such as `Task.from_loaders`).

    faster, smaller: factors over the given network, 2 times faster if neither is given; max_drop: how much of the
    primary metric may be lost (1.0: it does not matter). budget: of everything, opening and report included, in
    seconds, or text such as '5m'; what is the best by then is what comes back. as_it_is: go on with a network that
    seems to be fed wrongly (otherwise BadInput, if no better way to feed it is found).
    batch, threads: how the network will be used, examples in one call and threads of the processor: latency is
    measured so. device: where training takes place ('cuda', 'mps', ...); files and latency are of the CPU.
    history: begin with the methods that won on similar networks of yours before, and remember which one wins here
    (app/candidates/history.py; in the cache folder).
    Progress is shown, as a bar or in lines, unless `quiet`.
    """
    target = Target(2.0 if faster is None and smaller is None else faster, smaller, max_drop)
    seconds = parse_seconds(budget) if isinstance(budget, str) else float(budget)
    return run(
        model, task, target, clock=Clock(seconds), methods=methods, seed=seed, out=Path(out), view=View(quiet),
        as_it_is=as_it_is, deployment=Deployment(batch, threads), device=device,
        use_history=history,
    )  # fmt: skip


def run(
    model: nn.Module | str | None,
    task: Task | str,
    target: Target,
    *,
    clock: Clock,
    methods: Sequence[str] | None,
    seed: int,
    out: Path,
    view: View,
    task_options: dict[str, Any] | None = None,
    state: Path | None = None,
    trust_pickle: bool = False,
    ray: str | None = None,
    as_it_is: bool = False,
    deployment: Deployment = Deployment(),  # noqa: B008  frozen
    device: str = "cpu",
    use_history: bool = True,
) -> Result:
    """The whole story; `improve` and the command line call this."""
    assert clock.seconds is not None
    check_asked(target)
    check_threads(deployment)
    plan.methods_for(methods)
    runner = open_runner(f"ray:{ray}" if ray else "processes", device)
    name = task if isinstance(task, str) else ""
    asked = Asked(target, clock.seconds, methods, seed, out, name, task_options or {}, deployment, device)
    view.clock = clock
    with clock.command():
        runner.warm()  # it loads torch while we open the network
        with clock.opening():
            subject = open_subject(
                model,
                task,
                seed,
                out,
                view,
                task_options=task_options,
                state=state,
                trust_pickle=trust_pickle,
                as_it_is=as_it_is,
                device=device,
            )
        return _Job(subject, asked, clock, view, runner, use_history).go()


def check_asked(target: Target) -> None:
    """BadInput for a target that nothing, or everything, meets."""
    for name, factor in (("faster", target.faster), ("smaller", target.smaller)):
        if factor is not None and not 1 < factor < math.inf:
            raise BadInput(f"{name} {factor:g} cannot be asked for; give a factor above 1, such as 2")
    if target.max_drop is not None and not 0 <= target.max_drop <= 1:
        raise BadInput(f"max_drop {target.max_drop:g} is no fraction from 0 to 1; 0.01 is one point")


class _Job:
    """One improvement: what its steps share."""

    def __init__(
        self, subject: Subject, asked: Asked, clock: Clock, view: View, runner: Runner, use_history: bool
    ) -> None:
        self.subject, self.task, self.network = subject, subject.task, subject.network
        self.asked, self.target, self.out = asked, asked.target, asked.out
        self.clock, self.budget = clock, Budget(seconds=asked.seconds, target=asked.target)
        self.view, self.runner = view, runner
        self.metric = subject.task.primary
        self.planned: list[Trial] = []
        self.use_history = use_history
        self.order = history.Order(())

    def go(self) -> Result:
        view = self.view
        view.say(f"Netwright improves a network: {describe(self.subject)}")
        self.subject.warn(view)
        view.say(
            f"asked: {report.asked(self.target, self.metric)}, within {self.asked.seconds:.0f} s{self._how()}\n"
        )
        study = Study(self.out / "study.db", self._question())
        original = self._measure(study)
        self.order = self._ordered(study)
        rows = self._try(study, original)
        original, rows = study.row(original["key"]), [study.row(row["key"]) for row in rows]
        choice = choose(rows, original, self.target, self.metric, len(self.task.val))
        late = [t.label for t in self.planned if t.key not in {r["key"] for r in rows}]
        if choice.row is None:
            if not late and all(row["status"] != "timed out" for row in rows):
                reasons = "; ".join(f"{r['label']}: {r['reason']}" for r in rows)
                raise BadInput(f"no method could serve this network ({reasons})")
            choice = Choice(original, False, choice.why)
        view.show(evidence.trial_table(rows, choice, self.metric))
        if late:
            view.say(f"not tried, for want of time: {', '.join(late)}")
        # a failure from here on leaves no new file beside an older result.json
        with together(self.out, last="result.json") as folder:
            result = self._finish(study, original, rows, choice, late, folder)
        self._say(result)
        self._remember(study, rows, choice)
        study.close()
        return result

    def _how(self) -> str:
        """What is not as usual."""
        use, device = self.asked.deployment, self.asked.device
        return ("" if use.usual else f"; latency with {use}") + (
            "" if device == "cpu" else f"; trained on {device}"
        )

    def _question(self) -> dict[str, str]:
        return {
            "job": "improve", "network": fingerprint(self.network), "task": self.task.fingerprint(),
            "asked": json.dumps(asdict(self.target), sort_keys=True), "methods": ",".join(self.asked.methods or ()),
            "seed": str(self.asked.seed), **self.asked.deployment.question,
            **({} if self.asked.device == "cpu" else {"device": self.asked.device}),
        }  # fmt: skip

    def _measure(self, study: Study) -> Row:
        """The given network's own row, and original.onnx."""
        until = self.clock.last - self.clock.closing
        rows = self._run(study, [original_trial(Budget(seconds=self.asked.seconds))], until)
        if not rows or rows[0]["status"] == "timed out":
            raise BadInput(
                f"the network could not even be measured and exported within {self.asked.seconds:g} s; give a "
                "larger --budget"
            )
        (original,) = rows
        if original["status"] != "done":
            raise BadInput(f"the network cannot be measured on task '{self.task.name}': {original['reason']}")
        if ONNX not in original["files"]:
            raise BadInput(f"the network cannot be exported: {original['note']}")
        # not before the study is known to be ours: what an earlier run left in the folder stays as it is until then
        with atomic(self.out / "original.onnx") as path:
            path.write_bytes(study.file(original["key"], ONNX))
        return original

    def _ordered(self, study: Study) -> history.Order:
        """The methods in their order: the user's, or what won before on similar networks first, then the catalogue's.
        A study keeps the order that it began with, whatever has been learned since."""
        order = history.Order(tuple(row.slug for row in plan.methods_for(self.asked.methods)))
        if not self.asked.methods and self.use_history:
            order = history.ordered(order.slugs, self._circumstances(), history.read())
        kept = json.loads(study.remember("order", json.dumps(order.to_json())))
        order = history.Order(tuple(kept["slugs"]), tuple(kept["runs"]))
        if order.sentence:
            self.view.say(f"note: {order.sentence}")
        return order

    def _circumstances(self) -> history.Circumstances:
        return history.circumstances(self.network, self.task, self.target, self.asked.deployment)

    def _remember(self, study: Study, rows: list[Row], choice: Choice) -> None:
        """Put on record what was tried and what won, for the next network that is like this one."""
        if not self.use_history:
            return
        tried = tuple(dict.fromkeys(r["slug"] for r in rows if r["slug"] not in (ORIGINAL, CONTROL)))
        run = history.Run(
            study.remember("run", uuid.uuid4().hex), datetime.now(UTC).date().isoformat(), self.subject.name,
            self.task.name, self._circumstances(), tried,
            combined.started_as(choice.row, rows)["slug"] if choice.row is not None and choice.meets else "",
        )  # fmt: skip
        try:
            history.add(run)
        except (NetwrightError, OSError) as error:
            self.view.say(f"note: what won here could not be remembered ({error})")

    def _try(self, study: Study, original: Row) -> list[Row]:
        """All rounds, each followed by timing, nothing else running then. What does not train comes first and may
        use some of the grace after the budget; what trains ends in time for the report to be in the budget."""
        clock, spare, seed = self.clock, original["seconds"], self.asked.seed
        ready = clock.last - spare - clock.closing  # then no time is left to calibrate the winner
        trained = min(ready, max(clock.end - plan.ending(spare), clock.began + 0.5 * self.asked.seconds))
        rounds = plan.rounds(self.asked.seconds)
        images = self.task.meaning == "image"
        first = plan.first_round(self.target, self.order.slugs, self.budget, seed, spare, images)
        quick = [t for t in first if not trains(t)]
        self.planned = list(first)
        most = len(first) + sum(later.most + combined.MOST for later in rounds[1:])
        with self.view.trials(most, clock.end):
            self._run(study, quick, ready, spare)
            self._run(study, first[len(quick) :], self._until(rounds, trained), spare, last=trained)
            original, rows = self._timed(study, ready, original["key"])
            self._show_before(original)
            for number in range(1, len(rounds)):
                self._combine(study, rows, original, trained, spare)
                new = plan.later_round(
                    number, rows, original, self.target, self.metric, self.budget, seed, spare
                )
                new = told_apart([t for t in new if t not in self.planned], self.planned)
                self.planned += new
                self._run(study, new, self._until(rounds[number:], trained), spare, last=trained)
                original, rows = self._timed(study, ready, original["key"])
            if self._combine(study, rows, original, ready, spare):
                original, rows = self._timed(study, ready, original["key"])
        return rows

    def _until(self, rounds: Sequence[plan.Round], trained: float) -> float:
        """When the first of the rounds that are left is to be over. trained: when the last one is."""
        now = time.monotonic()
        return now + rounds[0].share / sum(r.share for r in rounds) * max(0.0, trained - now)

    def _timed(self, study: Study, ready: float, key: str) -> tuple[Row, list[Row]]:
        """The rows so far with their latencies: the original's, whose key this is, and the planned trials'."""
        self._time(study, ready, sum("faster" not in row for row in study.rows))
        by_key = {row["key"]: row for row in study.rows}
        return by_key[key], [by_key[t.key] for t in self.planned if t.key in by_key]

    def _combine(self, study: Study, rows: list[Row], original: Row, until: float, spare: float) -> bool:
        """Try on the best networks so far what only rewrites weights; whether any such trial was new."""
        new = combined.combinations(rows, original, self.target, self.metric, self.asked.seed)
        new = [t for t in new if t not in self.planned]
        self.planned += new
        networks = {t.settings[ON]: study.network(t.settings[ON]) for t in new}
        now = time.monotonic()
        end = now + combined.SHARE * max(0.0, until - now)
        return bool(self._run(study, new, end, spare, last=until, on=networks))

    def _run(
        self,
        study: Study,
        trials: list[Trial],
        until: float,
        spare: float = 0.0,
        last: float | None = None,
        on: dict[str, nn.Module] | None = None,
    ) -> list[Row]:
        """on: the networks that the trials start from, by key; default: all from the given one."""
        if not trials:
            return []
        try:
            return study.run(
                trials,
                run_trial if on is None else combined.run_on,
                self.network if on is None else on,
                self.task,
                self.asked.device,
                limits=Limits(until=until, last=last, spare=spare),
                progress=self.view.trial,
                runner=self.runner,
            )
        except KeyboardInterrupt:
            done = sum(r["slug"] != ORIGINAL for r in study.rows)
            raise KeyboardInterrupt(
                f"stopped after {done} trials; the same command goes on from here."
            ) from None

    def _time(self, study: Study, ready: float, count: int) -> None:
        """Time what is new; what cannot be timed in time stays without a latency and is not chosen."""
        seconds = min(1.0, 0.03 * self.asked.seconds / (count + 1))
        left = ready - time.monotonic()
        with contextlib.suppress(TimeUp), cut_off(ready), within(0.7 * left):
            time_candidates(study, self.task, self.asked.deployment, rounds=60, seconds=seconds)
        hold_beside(study, self.task)

    def _show_before(self, original: Row) -> None:
        if "onnx_latency_ms" in original:
            self.view.say(f"  on {number_of(len(self.task.val), 'validation example')}")
            self.view.say(verdict.line("before", original, self.metric))

    def _finish(
        self, study: Study, original: Row, rows: list[Row], choice: Choice, late: list[str], folder: Path
    ) -> Result:
        """Calibrate the winner, use the test data once, export, re-check, report; all files in `folder`."""
        assert choice.row is not None
        written = finish.write(study, choice.row, self.network, self.task, folder, self.clock)
        networks = {"before": self.network, "after": written.network}
        files = {"before": self.out / "original.onnx", "after": folder / finish.MODEL}
        tested, notes = finish.tested(files, self.task, self.clock)
        use = self.asked.deployment
        before, after = finish.figures(networks, files, tested, self.task, self.clock, use)
        error, unwritten = finish.program(written.network, self.network, self.task, folder, self.clock)
        before["validation"], after["validation"] = original[self.metric], choice.row[self.metric]
        change = verdict.changes_of(tested, self.task)
        met, sentence = verdict.judge(
            before,
            after,
            self.target,
            self.metric,
            change,
            fresh=not self.subject.may_have_seen,
            deployment=use,
        )
        if choice.row is original:
            met, sentence = False, f"no candidate was ready in time, so this is the given network. {LARGER}"
        found = Found(
            choice,
            written.calibration,
            networks,
            tested,
            change,
            max(error, written.max_error),
            (*unwritten, *notes),
            late,
            self.order,
        )
        label, trials = choice.row["label"], trial_rows(rows, original, choice, self.metric)
        result = Result(written.network, self.task, met, sentence, label, before, after, self.out, trials)
        result.document = document(result, self.subject, self.asked, found)
        try:
            with cut_off(self.clock.last - 1):
                report.write(shown(result, self.subject, self.asked, found, self.clock), folder / REPORT)
        except TimeUp:
            result.document["notes"].append(f"{REPORT} was not written: no time was left")
        text = json.dumps(result.document, indent=1, default=str) + "\n"
        (folder / "result.json").write_text(text, encoding="utf-8")
        for name in (finish.PROGRAM, REPORT):
            if not (folder / name).exists():  # what an earlier run left is of another network
                (self.out / name).unlink(missing_ok=True)
        return result

    def _say(self, result: Result) -> None:
        self.view.say(f"  on {number_of(result.document['test_examples'], 'test example')}")
        self.view.say(verdict.line("before", result.before, self.metric))
        calibration = result.document["calibration"].split(":")[0]
        self.view.say(verdict.line("after ", result.after, self.metric, f" ({calibration})") + "\n")
        for note in result.document["notes"]:
            self.view.say(note)
        self.view.say(f"{'met' if result.met else 'NOT met'}: {result.sentence}")
        for remark in result.document["remarks"]:
            self.view.say(f"note: {remark}")
        names = [finish.MODEL, finish.PROGRAM, "original.onnx", REPORT, "result.json", "study.db"]
        self.view.say(f"wrote {self.out}/: {'  '.join(n for n in names if (self.out / n).exists())}")


__all__ = ["Result", "improve", "run"]
