"""The main job: measure a network, try methods side by side, apply the winner, calibrate, export, report."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from netwright.app import evidence, plan, report, verdict
from netwright.app.beside import hold_beside
from netwright.app.calibrated import calibrated
from netwright.app.choose import Choice, choose
from netwright.app.compare import limits_for, open_runner
from netwright.app.opening import Subject, describe, open_subject
from netwright.app.result import Asked, Found, Result, document, shown, trial_rows
from netwright.app.screen import View
from netwright.app.timing import time_candidates
from netwright.app.trials import ORIGINAL, original_trial, run_trial, told_apart
from netwright.core.budget import Budget, Target, parse_seconds
from netwright.core.checkpoint import together
from netwright.core.cost import cost, latency
from netwright.core.errors import BadInput
from netwright.core.export import Exported, export
from netwright.core.fits import signature_for
from netwright.core.metrics import outputs_of_file, score
from netwright.core.network import fingerprint
from netwright.core.plural import number_of
from netwright.core.processes import Runner
from netwright.core.study import Study, Trial
from netwright.core.task import Task

Row = dict[str, Any]


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
    quiet: bool = True,
) -> Result:
    """`netwright improve` for Python: any module, any Task (such as `Task.from_loaders`).

    faster, smaller: factors over the given network, 2 times faster if neither is given; max_drop: how much of the
    primary metric may be lost (1.0: it does not matter). budget: seconds, or text such as '5m'.
    """
    target = Target(2.0 if faster is None and smaller is None else faster, smaller, max_drop)
    seconds = parse_seconds(budget) if isinstance(budget, str) else float(budget)
    return run(
        model, task, target, seconds=seconds, methods=methods,
        seed=seed, out=Path(out), view=View(quiet),
    )  # fmt: skip


def run(
    model: nn.Module | str | None,
    task: Task | str,
    target: Target,
    *,
    seconds: float,
    methods: Sequence[str] | None,
    seed: int,
    out: Path,
    view: View,
    task_options: dict[str, Any] | None = None,
    state: Path | None = None,
    trust_pickle: bool = False,
    ray: str | None = None,
) -> Result:
    """The whole story; `improve` and the command line call this."""
    began = time.monotonic()
    check_asked(target)
    plan.methods_for(methods)
    subject = open_subject(
        model, task, seed, out, view, task_options=task_options, state=state, trust_pickle=trust_pickle
    )
    runner = open_runner(f"ray:{ray}" if ray else "processes")
    name = task if isinstance(task, str) else ""
    asked = Asked(target, seconds, methods, seed, out, name, task_options or {})
    return _Job(subject, asked, view, runner).go(began)


def check_asked(target: Target) -> None:
    """BadInput for a target that nothing, or everything, meets."""
    for name, factor in (("faster", target.faster), ("smaller", target.smaller)):
        if factor is not None and not 1 < factor < math.inf:
            raise BadInput(f"{name} {factor:g} cannot be asked for; give a factor above 1, such as 2")
    if target.max_drop is not None and not 0 <= target.max_drop <= 1:
        raise BadInput(f"max_drop {target.max_drop:g} is no fraction from 0 to 1; 0.01 is one point")


class _Job:
    """One improvement: what its steps share."""

    def __init__(self, subject: Subject, asked: Asked, view: View, runner: Runner) -> None:
        self.subject, self.task, self.network = subject, subject.task, subject.network
        self.asked, self.target, self.out = asked, asked.target, asked.out
        self.budget = Budget(seconds=asked.seconds, target=asked.target)
        self.view, self.runner = view, runner
        self.metric = subject.task.primary

    def go(self, began: float) -> Result:
        view = self.view
        view.say(f"Netwright improves a network: {describe(self.subject)}")
        self.subject.warn(view)
        view.say(f"asked: {report.asked(self.target, self.metric)}, within {self.asked.seconds:.0f} s\n")
        self.runner.warm()
        study = Study(self.out / "study.db", self._question())
        original, rows = self._try(study)
        choice = choose(rows, original, self.target, self.metric, len(self.task.val))
        if choice.row is None:
            reasons = "; ".join(f"{r['label']}: {r['reason']}" for r in rows)
            raise BadInput(f"no method could serve this network ({reasons})")
        view.show(evidence.trial_table(rows, choice, self.metric))
        # a failure from here on leaves no new file beside an older result.json
        with together(self.out, last="result.json") as folder:
            result = self._finish(study, original, rows, choice, began, folder)
        self._say(result)
        study.close()
        return result

    def _question(self) -> dict[str, str]:
        return {
            "job": "improve", "network": fingerprint(self.network), "task": self.task.fingerprint(),
            "asked": json.dumps(asdict(self.budget), sort_keys=True), "methods": ",".join(self.asked.methods or ()),
            "seed": str(self.asked.seed),
        }  # fmt: skip

    def _raw_example(self, count: int) -> tuple[Any, ...]:
        """Inputs as the exported files take them: before normalisation."""
        return self.task.raw().example(count)

    def _try(self, study: Study) -> tuple[Row, list[Row]]:
        """Both rounds, each followed by timing, nothing else running then."""
        (original,) = self._run(study, [original_trial()])
        if original["status"] != "done":
            raise BadInput(f"the network cannot be measured on task '{self.task.name}': {original['reason']}")
        # not before the study is known to be ours: what an earlier run left in the folder stays as it is until then
        self._export(self.network, self.out / "original.onnx")
        first = plan.first_round(self.target, self.asked.methods, self.budget, self.asked.seed)
        with self.view.trials(len(first) + 2):
            self._run(study, first)
            self._time(study)
            original = study.row(original["key"])
            rows = [study.row(t.key) for t in first]
            self._show_before(original)
            second = plan.second_round(rows, original, self.target, self.metric, self.budget, self.asked.seed)
            second = told_apart([t for t in second if t.key not in {f.key for f in first}], first)
            self._run(study, second)
            self._time(study)
        return study.row(original["key"]), [study.row(t.key) for t in [*first, *second]]

    def _run(self, study: Study, trials: list[Trial]) -> list[Row]:
        if not trials:
            return []
        limits = limits_for(trials[0].budget)
        try:
            return study.run(
                trials,
                run_trial,
                self.network,
                self.task,
                limits=limits,
                progress=self.view.trial,
                runner=self.runner,
            )
        except KeyboardInterrupt:
            done = sum(r["slug"] != ORIGINAL for r in study.rows)
            raise KeyboardInterrupt(
                f"stopped after {done} trials; the same command goes on from here."
            ) from None

    def _time(self, study: Study) -> None:
        time_candidates(study, self.task, rounds=60, seconds=1.0)
        hold_beside(study, self.task)

    def _show_before(self, original: Row) -> None:
        self.view.say(f"  on {number_of(len(self.task.val), 'validation example')}")
        self.view.say(verdict.line("before", original, self.metric))

    def _export(self, network: nn.Module, path: Path) -> Exported:
        """Write a network with what its file takes and gives, under the names that the given one's file uses."""
        return export(
            network, self._raw_example(2), path, self.task.front, signature=signature_for(self.network, self.task)
        )  # fmt: skip

    def _finish(
        self, study: Study, original: Row, rows: list[Row], choice: Choice, began: float, folder: Path
    ) -> Result:
        """Calibrate the winner, use the test data once, export, re-check, report; all files in `folder`."""
        assert choice.row is not None
        chosen, calibration = calibrated(study.network(choice.row["key"]), self.task)
        networks = {"before": self.network, "after": chosen}
        written = [self._export(chosen, folder / name) for name in ("model.onnx", "model.pt2")]
        files = {"before": self.out / "original.onnx", "after": folder / "model.onnx"}
        tested = {k: outputs_of_file(path, self.task.raw().test) for k, path in files.items()}
        before, after = self._figures(networks, files, tested)
        before["validation"], after["validation"] = original[self.metric], choice.row[self.metric]
        change = verdict.changes_of(tested, self.task)
        met, sentence = verdict.judge(
            before, after, self.target, self.metric, change, fresh=not self.subject.may_have_seen
        )
        found = Found(choice, calibration, networks, tested, change, max(w.max_error for w in written))
        label, trials = choice.row["label"], trial_rows(rows, original, choice, self.metric)
        result = Result(chosen, self.task, met, sentence, label, before, after, self.out, trials)
        result.document = document(result, self.subject, self.asked, found)
        seconds = time.monotonic() - began
        report.write(shown(result, self.subject, self.asked, found, seconds), folder / "report.html")
        text = json.dumps(result.document, indent=1, default=str) + "\n"
        (folder / "result.json").write_text(text, encoding="utf-8")
        return result

    def _figures(
        self, networks: dict[str, nn.Module], files: dict[str, Path], tested: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The figures of result.json for both networks: metrics of the files, latency timed in turn."""
        onnx = latency(list(files.values()), self._raw_example(1), "onnx", rounds=200, seconds=20)
        eager = latency(list(networks.values()), self.task.example(1), "torch", rounds=60, seconds=10)
        figures = []
        for i, name in enumerate(networks):
            counted = cost(networks[name], self.task.example(1))
            figures.append({
                **score(*tested[name], self.task.kind), "onnx_latency_ms": onnx.median_ms[i],
                "torch_latency_ms": eager.median_ms[i], "onnx_ratio": onnx.ratio[i], "onnx_spread": onnx.spread[i],
                "torch_ratio": eager.ratio[i], "torch_spread": eager.spread[i],
                "bytes": files[name].stat().st_size, "parameters": counted.parameters,
                "macs": counted.macs, "peak_activation_bytes": counted.peak_activation_bytes,
            })  # fmt: skip
        return figures[0], figures[1]

    def _say(self, result: Result) -> None:
        self.view.say(f"  on {number_of(len(self.task.test), 'test example')}")
        self.view.say(verdict.line("before", result.before, self.metric))
        calibration = result.document["calibration"].split(":")[0]
        self.view.say(verdict.line("after ", result.after, self.metric, f" ({calibration})") + "\n")
        self.view.say(f"{'met' if result.met else 'NOT met'}: {result.sentence}")
        for remark in result.document["remarks"]:
            self.view.say(f"note: {remark}")
        self.view.say(
            f"wrote {self.out}/: model.onnx  model.pt2  original.onnx  report.html  result.json  study.db"
        )


__all__ = ["Result", "improve", "run"]
