"""One method on one network: `netwright compress|inspect|explain|verify|calibrate|adapt|train|search`."""

from __future__ import annotations

import dataclasses
import html
import inspect
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from netwright.app.candidates.run import default_radius
from netwright.app.clock import Clock
from netwright.app.compare import TEACHING
from netwright.app.feeding.opening import Subject, describe, open_subject
from netwright.app.report import report
from netwright.app.screen import View
from netwright.app.settings import checked
from netwright.core import catalogue, progress
from netwright.core.budget import Budget, within
from netwright.core.errors import BadInput
from netwright.core.files.checkpoint import atomic
from netwright.core.files.export import export
from netwright.core.files.facts import signature_for
from netwright.core.files.staged import Staged, write_folder
from netwright.core.measure.cost import cost
from netwright.core.metrics import evaluate
from netwright.core.network import as_tuple
from netwright.core.task import Task
from netwright.explain.parts.overlay import png

DEFAULTS = {
    "inspect": "profile",
    "explain": "smooth-gradcampp",
    "verify": "crown",
    "calibrate": "temperature-scaling",
}
EXPLAINED = 12
WRITING = 3.0  # times what measuring takes, kept for measuring again and for the files


def run(
    goal: str,
    slug: str | None,
    model: str | None,
    task: str | None,
    clock: Clock,
    *,
    settings: dict[str, Any],
    seed: int,
    out: Path | None,
    view: View,
    task_options: dict[str, Any],
    state: Path | None,
    trust_pickle: bool,
    radius: float | None = None,
    as_it_is: bool = False,
) -> dict[str, Any]:
    """Build the method from its catalogue row, run it by its contract, show and write what came of it; all of it in
    the time of the clock."""
    view.clock = clock
    method = catalogue.method(slug or default(goal))
    if method.goal != goal:
        raise BadInput(
            f"'{method.slug}' is a method of the goal {method.goal}: netwright {method.goal} --method ..."
        )
    if radius is not None and method.contract != "Verifier":
        raise BadInput("--radius is for netwright verify")
    built = build(method, settings, seed)
    if goal == "inspect" and task is None and model is not None:
        from netwright.core.files.load import load

        if not needs_no_data(built):
            raise BadInput(f"{method.slug} looks at what the network makes of data: give --task")
        with clock.command(), within(clock.left):
            network = load(model, state=state, trust_pickle=trust_pickle)
            return show_finding(built(network, None), method, out, view)
    with clock.command():
        with clock.opening():
            subject = open_subject(
                model, task or "digits", seed, out, view,
                task_options=task_options, state=state, trust_pickle=trust_pickle,
                as_it_is=as_it_is or goal in TEACHING,
            )  # fmt: skip
        view.say(f"{method.name} on {describe(subject)}")
        subject.warn(view)
        if method.contract == "Verifier":
            return verify(built, method, subject, clock, out, view, radius)
        if method.contract not in CONTRACTS:
            raise BadInput(f"{method.slug} is a {method.contract}: use it from Python ({method.path})")
        with view.working(method.name) as listener, progress.listen(listener):
            return CONTRACTS[method.contract](built, method, subject, clock, out, view)


def about_data(subject: Subject) -> dict[str, Any]:
    """What every answer says of the rows that it rests on."""
    return {"warnings": list(subject.seen.warnings), "data": subject.seen.figures}


def needs_no_data(analysis: Any) -> bool:
    """Whether an Analysis can be called with a network alone."""
    data = inspect.signature(analysis).parameters.get("data")
    return data is not None and data.default is None


def default(goal: str) -> str:
    if goal in DEFAULTS:
        return DEFAULTS[goal]
    names = ", ".join(m.slug for m in catalogue.of_goal(goal))
    raise BadInput(f"which method? Give --method: {names or 'there is none yet'}")


def build(method: catalogue.Method, settings: dict[str, Any], seed: int) -> Any:
    """The method with the user's settings; one that is unknown or of another type is an error that says so."""
    settings = checked(method, settings)
    if "seed" in {f.name for f in dataclasses.fields(method.load())}:
        settings = {"seed": seed, **settings}
    return method.build(**settings)


def transform(
    built: Any, method: catalogue.Method, subject: Subject, clock: Clock, out: Path | None, view: View
) -> dict[str, Any]:
    """Before and after on validation data; the new network as ONNX and .pt2, or as a folder where it decides by values,
    which no single file can hold."""
    task = subject.task
    start = time.monotonic()
    before = measured(subject.network, task)
    spare = (
        WRITING * (time.monotonic() - start) + 0.1 * clock.left
    )  # to measure, export and prove the new one
    seconds = max(0.3 * clock.left, clock.left - spare)
    with within(seconds):
        after = built(subject.network, task, Budget(seconds=seconds))
    figures = [before, measured(after, task)]
    rows = [
        {"figure": k, "before": f"{v:.6g}", "after": f"{figures[1][k]:.6g}"} for k, v in figures[0].items()
    ]
    view.table(rows)
    if out is not None:
        if isinstance(after, Staged) and after.plan.decisions:
            write_folder(after, out / "model")
            view.say(f"wrote {out}/model/: plan.json  program.txt  {len(after.plan.parts)} ONNX files")
        else:
            signature = signature_for(subject.network, task)
            for name in ("model.onnx", "model.pt2"):
                export(after, task.raw().example(2), out / name, task.front, signature=signature)
            view.say(f"wrote {out}/: model.onnx  model.pt2")
    return {"method": method.slug, "before": figures[0], "after": figures[1], **about_data(subject)}


def measured(network: nn.Module, task: Task) -> dict[str, float]:
    return {**evaluate(network, task, "val"), **dataclasses.asdict(cost(network, task.example()))}


def analysis(
    built: Any, method: catalogue.Method, subject: Subject, clock: Clock, out: Path | None, view: View
) -> dict[str, Any]:
    networks = [subject.network]
    if method.networks > 1:
        with within(clock.left / 2):
            networks.append(second_network(subject))
    with within(clock.left):
        finding = built(*networks, subject.task.val)
    return show_finding(finding, method, out, view, about_data(subject))


def second_network(subject: Subject) -> nn.Module:
    """For methods that compare two networks: the same architecture, trained from other weights."""
    from netwright.core.fit import Fit
    from netwright.core.weights.initialise import reinitialised

    twin = reinitialised(subject.network, seed=1)
    Fit(epochs=5, lr=3e-3)(twin, subject.task)
    return twin


def show_finding(
    finding: Any, method: catalogue.Method, out: Path | None, view: View, about: dict[str, Any] | None = None
) -> dict[str, Any]:
    view.say(finding.sentence + "\n")
    view.table(finding.table())
    document = {"method": method.slug, **finding.to_json(), **(about or {})}
    if out is not None:
        with atomic(out / f"{method.slug}.json") as path:
            path.write_text(json.dumps(document, default=str), encoding="utf-8")
        with atomic(out / f"{method.slug}.html") as path:
            finding.plot().write_html(path, include_plotlyjs=True)
        view.say(f"wrote {out}/: {method.slug}.json  {method.slug}.html")
    return document


def explain(
    built: Any, method: catalogue.Method, subject: Subject, clock: Clock, out: Path | None, view: View
) -> dict[str, Any]:
    """Heat maps of test pictures with their faithfulness; a gallery where a folder was given."""
    task = subject.task
    inputs, targets = next(iter(task.test.batches(EXPLAINED)))
    with within(clock.left):
        found = built(subject.network, inputs)
    scores = {name: values.mean().item() for name, values in found.scores.items()}
    view.table([{"score": k, "mean over pictures": f"{v:.4f}"} for k, v in scores.items()])
    if out is not None:
        figures = []
        for picture, heat, guess, truth in zip(
            as_tuple(inputs)[0], found.attribution, found.target.tolist(), targets.tolist(), strict=True
        ):
            pair = [
                report.data_uri(png(picture, torch.zeros_like(heat))),
                report.data_uri(png(picture, heat)),
            ]
            images = "".join(f'<img src="{uri}" alt="">' for uri in pair)
            said = f"output {guess}"
            if task.kind == "classification":
                said = html.escape(f"{task.classes[guess]} (true: {task.classes[truth]})")
            figures.append(f"<figure>{images}<figcaption>{said}</figcaption></figure>")
        with atomic(out / "gallery.html") as path:
            path.write_text(
                f"<!doctype html><title>{method.name}</title>{''.join(figures)}", encoding="utf-8"
            )
        view.say(f"wrote {out}/: gallery.html")
    return {"method": method.slug, "scores": scores, "target": found.target.tolist(), **about_data(subject)}


def verify(
    built: Any,
    method: catalogue.Method,
    subject: Subject,
    clock: Clock,
    out: Path | None,
    view: View,
    radius: float | None,
) -> dict[str, Any]:
    """Clean, attacked and certified accuracy on the first test examples within a radius."""
    from netwright.verify.parts.certify import certified_accuracy

    if radius is None:
        radius = default_radius(subject.task)
    with view.working(method.name) as listener, progress.listen(listener):
        found = certified_accuracy(subject.network, subject.task, radius, built, Budget(seconds=clock.left))
    row = {
        "within a radius of": f"{radius:.4g}", "right": report.percent(found.clean),
        "right under attack": report.percent(found.attacked),
    }  # fmt: skip
    if found.certified is not None:
        row["proved right"] = report.percent(found.certified)
    view.table([{**row, "test examples": found.examples}])
    view.say(
        "an attack proves nothing: what stood may still fall to another one"
        if found.certified is None
        else "'proved' is by bounds in float64, with room for rounding but without directed rounding"
    )
    answers = {answer: found.verdict.count(answer) for answer in ("holds", "violated", "unknown")}
    if found.certified is not None and answers["unknown"]:
        view.say(f"{answers['unknown']} neither broken nor proved; a larger --budget may decide more of them")
    document = {
        "method": method.slug, "radius": radius, "clean": found.clean, "attacked": found.attacked,
        "certified": found.certified, "examples": found.examples, "answers": answers,
        **about_data(subject),
    }  # fmt: skip
    if out is not None:
        with atomic(out / f"{method.slug}.json") as path:
            path.write_text(json.dumps(document), encoding="utf-8")
        view.say(f"wrote {out}/: {method.slug}.json")
    return document


CONTRACTS: dict[str, Callable[..., dict[str, Any]]] = {
    "Transform": transform,
    "Analysis": analysis,
    "Explainer": explain,
}
