"""What `improve` writes down: result.json, and the evidence of the report."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from netwright.app.candidates import control, plan
from netwright.app.candidates.beside import blow_up, blown_up, note_of
from netwright.app.candidates.choose import Choice
from netwright.app.candidates.history import Order
from netwright.app.candidates.run import ORIGINAL
from netwright.app.clock import Clock, TimeUp, cut_off
from netwright.app.deployment import Deployment
from netwright.app.feeding.opening import Subject, describe
from netwright.app.feeding.suspicion import guesses
from netwright.app.report import evidence, report
from netwright.app.report.result import Result
from netwright.core import catalogue
from netwright.core.budget import Target
from netwright.core.files.facts import signature_for
from netwright.core.measure.machine import instruction_sets, processor_name
from netwright.core.measure.paired import Change

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What the user asked for. seconds: of the whole command. task_name, task_options: as the command line had them.
    deployment: how the network will be used. device: where training takes place."""

    target: Target
    seconds: float
    methods: Sequence[str] | None
    seed: int
    out: Path
    task_name: str = ""
    task_options: Mapping[str, Any] = field(default_factory=dict)
    deployment: Deployment = field(default_factory=Deployment)
    device: str = "cpu"


@dataclass(frozen=True)
class Found:
    """What became of the winner. networks, tested: 'before' and 'after'; tested are the files' outputs and targets.
    changes: of the metrics on the test examples, with their intervals. notes: what was left out for want of time.
    late: labels of the candidates that were not tried for want of it. order: in which the methods were tried.
    """

    choice: Choice
    calibration: str
    networks: dict[str, nn.Module]
    tested: dict[str, tuple[Tensor, Tensor]]
    changes: dict[str, Change]
    max_error: float
    notes: tuple[str, ...] = ()
    late: Sequence[str] = ()
    order: Order = field(default_factory=lambda: Order(()))

    @property
    def said(self) -> list[str]:
        """Notes for the report."""
        late = [f"Not tried, for want of time: {', '.join(self.late)}."] if self.late else []
        notes = [*filter(None, [self.order.sentence]), *self.notes]
        return [*late, *(f"{note[0].upper()}{note[1:]}." for note in notes)]


def trial_rows(rows: Sequence[Row], original: Row, choice: Choice, metric: str) -> list[Row]:
    """The study's rows as result.json and the report show them, each with the reason why it was (not) chosen."""
    keep = (
        "key", "label", "slug", "settings", "seed", "status", "reason", "seconds", metric, f"{metric}_change",
        f"{metric}_change_low", f"{metric}_change_high", "mae", "rmse", "r2_error", "nll", "ece", "blown_up",
        "onnx_latency_ms", "torch_latency_ms", "onnx_ratio", "onnx_ratio_low", "onnx_ratio_high",
        "onnx_interval_low", "onnx_interval_high", "faster", "bytes", "parameters", "macs",
    )  # fmt: skip
    return [
        {k: row[k] for k in keep if k in row}
        | {"note": note_of(row, original), "why": choice.why.get(row["key"], row["reason"])}
        for row in rows
    ]


def remarks(result: Result, found: Found, given: bool = True) -> list[str]:
    """What a reader must know before believing the gain: that training alone brings more, or probabilities that have
    blown up, on test data, in spite of the calibration. given: the network was not trained here."""
    row, task = found.choice.row, result.task
    assert row is not None
    trained = next((t for t in result.trials if t["slug"] == control.CONTROL), None)
    said = [control.remark(trained, row, task.primary)]
    if blown_up(result.after.get("nll"), result.before.get("nll"), task):
        said.append(blow_up({**result.after, "blown_up": 1.0}, result.before))
    if not given and guesses(*found.tested["before"], task.kind):
        said.append(
            "the network that was trained here is no better than guessing, so the figures mean nothing: give a larger "
            "--budget, or a network"
        )
    return [line for line in said if line]


def left_out(trials: Sequence[Row]) -> list[str]:
    """That there is no control, where a method trained."""
    slugs = {t["slug"] for t in trials}
    trained = any(catalogue.method(slug).trains for slug in slugs - {ORIGINAL, control.CONTROL})
    return [control.LEFT_OUT] if trained and control.CONTROL not in slugs else []


def document(result: Result, subject: Subject, asked: Asked, found: Found) -> dict[str, Any]:
    """The content of result.json."""
    row = found.choice.row
    assert row is not None
    return {
        "met": result.met, "sentence": result.sentence, "asked": asdict(asked.target),
        "budget_seconds": asked.seconds, "deployment": asdict(asked.deployment), "device": asked.device,
        "method": row["slug"], "label": row["label"],
        "settings": row["settings"], "calibration": found.calibration, "before": result.before,
        "after": result.after, **{f"{name}_change": c.to_json() for name, c in found.changes.items()},
        "trials": result.trials, "seed": asked.seed, "task": asked.task_name or result.task.name,
        "task_options": dict(asked.task_options), "note": subject.note, "warnings": list(subject.seen.warnings),
        "remarks": [*remarks(result, found, subject.given), *left_out(result.trials)],
        "data": subject.seen.figures, "export_max_error": found.max_error,
        "order": found.order.to_json(),
        "not_tried": list(found.late), "notes": list(found.notes), "test_examples": len(found.tested["before"][1]),
        "signature": signature_for(subject.network, result.task).to_json(),
        "versions": versions(), "machine": machine(), "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def shown(result: Result, subject: Subject, asked: Asked, found: Found, clock: Clock) -> report.Evidence:
    """What the report shows."""
    row, networks, task = found.choice.row, found.networks, result.task
    assert row is not None
    maps, maps_line = [], ""
    with contextlib.suppress(TimeUp), cut_off(clock.last - 1):
        maps, maps_line = evidence.heat_maps(networks["before"], networks["after"], task)
    chosen = "No candidate was ready in time: this is the given network itself."
    if row["slug"] != ORIGINAL:
        method = catalogue.method(row["slug"])
        chosen = f"{method.name}: {method.summary} Calibration: {found.calibration}. {row.get('note') or ''}"
    return report.Evidence(
        subject=describe(subject), task_line=task.name, target=asked.target, met=result.met,
        sentence=result.sentence, primary=task.primary, deployment=asked.deployment,
        before=result.before, after=result.after,
        changes=found.changes, trials=result.trials, chosen=row["key"], chosen_text=chosen,
        test_count=len(found.tested["before"][1]), validation_count=len(task.val),
        signature=signature_for(subject.network, task), versions=versions(), machine=machine(),
        date=datetime.now(UTC).date().isoformat(),
        notes=[*found.said, *evidence.notes(subject, machine(), left_out(result.trials))],
        warnings=[*subject.seen.warnings, *remarks(result, found, subject.given)], fresh=not subject.may_have_seen,
        layers=evidence.layers(networks["before"], networks["after"]),
        untried=plan.untried([r["slug"] for r in result.trials]),
        reliability=evidence.reliabilities(found.tested, task), maps=maps, maps_line=maps_line,
        made=[
            ("seed", str(asked.seed)), ("budget", f"{asked.seconds:.0f} s"),
            ("time in all", f"{clock.elapsed:.0f} s"), ("latency with", str(asked.deployment)),
            ("trained on", asked.device),
            ("processor", f"{processor_name()} ({', '.join(instruction_sets()) or 'no known vector sets'})"),
            *versions().items(),
        ],
    )  # fmt: skip


def versions() -> dict[str, str]:
    names = ("netwright", "torch", "onnx", "onnxruntime", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def machine() -> dict[str, Any]:
    return {
        "processor": processor_name(),
        "instruction_sets": list(instruction_sets()),
        "system": platform.system(),
    }
