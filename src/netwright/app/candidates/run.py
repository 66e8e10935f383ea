"""The catalogue's methods as trials of a study: one function per contract, run in the worker."""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from netwright.app.candidates.control import CONTROL, trained_on
from netwright.core import catalogue, progress
from netwright.core.budget import Budget, within
from netwright.core.errors import BadInput, CannotWrite, NetwrightError, NotApplicable
from netwright.core.files.export import export
from netwright.core.files.facts import signature_for
from netwright.core.measure.cost import cost
from netwright.core.measure.paired import judged, r2_error
from netwright.core.metrics import outputs_of, score
from netwright.core.network import clone
from netwright.core.plural import number_of
from netwright.core.signature import Signature
from netwright.core.study.study import Outcome, Trial
from netwright.core.task import Task

ORIGINAL = "original"  # the slug of the network as it was given, measured like every candidate
ONNX = "candidate.onnx"
JUDGED = "judged.npy"  # per validation example, what the metrics are made of (core/measure/paired.py)
FINDING = "finding.json"
EXPLAINED = 16  # validation examples that an Explainer explains
RADIUS = "radius"  # the setting of a Verifier's trial that is none of its method's
ON = "on"  # the setting of a trial that starts from the network of another: its key; none of its method's either
VERIFIED = 50  # validation examples that a Verifier bounds

Wanted = str | tuple[str, Mapping[str, Any]]


def trials_for(
    goal: str, methods: Sequence[Wanted] | None = None, budget: Budget | None = None, seed: int = 0
) -> list[Trial]:
    """A trial per method, all on the same budget and seed.

    methods: slugs, or (slug, settings) for other settings than the catalogue's; None takes every method of the
    goal whose contract can be compared.
    """
    budget = budget or Budget()
    wanted: Iterable[Wanted] = methods or [
        m.slug for m in catalogue.of_goal(goal) if m.contract in ("Transform", *OTHERS)
    ]
    trials = []
    for slug, settings in ((w, {}) if isinstance(w, str) else w for w in wanted):
        method = catalogue.method(slug)
        if method.goal != goal:
            raise BadInput(f"'{slug}' is a method of the goal {method.goal}, not of {goal}")
        words = ", ".join(f"{name} {value}" for name, value in settings.items())
        label = f"{method.name} ({words})" if words else method.name
        trials.append(Trial(slug, dict(settings), seed, budget, label))
    if not trials:
        raise BadInput(f"no method of the goal {goal} can be compared yet")
    return trials


def original_trial(budget: Budget | None = None, goal: str = "") -> Trial:
    """The network as it was given: what every candidate of the goal is held against, on the same data."""
    settings = {"goal": goal} if goal == "calibrate" else {}
    return Trial(ORIGINAL, settings, 0, budget or Budget(), "original")


def told_apart(trials: Sequence[Trial], others: Sequence[Trial]) -> list[Trial]:
    """The trials, with seed and time in the labels of those that are called as one of the others is."""
    taken = {trial.label for trial in others}
    found = []
    for trial in trials:
        if trial.label in taken:
            seconds = trial.budget.seconds
            more = [f"seed {trial.seed}", *([] if seconds is None else [f"{seconds:.0f} s"])]
            trial = dataclasses.replace(trial, label=", ".join([trial.label, *more]))
        found.append(trial)
    return found


def run_trial(trial: Trial, network: nn.Module, task: Task, device: str = "cpu") -> Outcome:
    """Any trial, by its method's contract. device: where a Transform that trains does so."""
    own = trial.slug in (ORIGINAL, CONTROL)
    contract = "Transform" if own else catalogue.method(trial.slug).contract
    if contract == "Transform":
        return run_transform_trial(trial, network, task, device)
    return OTHERS[contract](trial, network, task)


def built(trial: Trial) -> Any:
    """The method with the trial's settings, and its seed where chance plays a part."""
    method = catalogue.method(trial.slug)
    kind, settings = method.load(), {k: v for k, v in trial.settings.items() if k != ON}
    if "seed" in {f.name for f in dataclasses.fields(kind)} - {*settings, *method.settings}:
        settings["seed"] = trial.seed
    try:
        return method.build(**settings)
    except TypeError as error:
        known = ", ".join(f.name for f in dataclasses.fields(kind))
        raise BadInput(f"{trial.slug}: {error}; its settings are {known}") from None


def run_transform_trial(trial: Trial, network: nn.Module, task: Task, device: str = "cpu") -> Outcome:
    """Run a Transform; keep the candidate and its ONNX file; measure it on validation data.

    device: where it runs, if it trains; its candidate comes back to the CPU, where all the rest is done.
    Methods of the goal calibrate learn from validation data: they get one half and are measured on the other.
    figures: the task's metrics, on so many `examples`, and r2_error, the standard error of R2; parameters, macs,
    peak_activation_bytes; bytes and export_max_error of the ONNX file; method_seconds (the method alone). Latency is
    measured later, when nothing else runs.
    """
    learn, judge = task, task
    if _goal(trial) == "calibrate":
        learn, judge = halves(task)
    start = time.monotonic()
    with at_most(trial), progress.remarks() as said:
        candidate = result_of(trial, network, learn, device)
    figures = {"method_seconds": time.monotonic() - start}
    outputs, targets = outputs_of(candidate, judge.val)
    figures |= score(outputs, targets, task.kind) | {"examples": float(len(targets))}
    each = judged(outputs, targets, task.kind)
    if task.kind == "regression":
        figures["r2_error"] = r2_error(each)
    counted = cost(candidate, task.example())
    figures |= {name: float(value) for name, value in dataclasses.asdict(counted).items()}
    try:
        content, error = onnx_file(candidate, task, signature_for(network, task))
    except CannotWrite:
        raise  # the disk, not the candidate
    except NetwrightError as reason:
        return Outcome(
            figures, candidate, {JUDGED: _npy(each)}, "; ".join([*said, f"no ONNX file: {reason}"])
        )
    figures |= {"bytes": float(len(content)), "export_max_error": error}
    return Outcome(figures, candidate, {ONNX: content, JUDGED: _npy(each)}, "; ".join(said))


def _npy(values: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values.float().numpy(), allow_pickle=False)
    return buffer.getvalue()


def result_of(trial: Trial, network: nn.Module, task: Task, device: str = "cpu") -> nn.Module:
    """The network that a Transform makes, on the CPU. device: where it does so, if it trains."""
    if trial.slug == ORIGINAL:
        return network
    elsewhere = device != "cpu" and trains(trial)
    if elsewhere:
        network = clone(network).to(device)
    if trial.slug == CONTROL:
        candidate = trained_on(network, task, trial.budget, trial.seed)
    else:
        candidate = built(trial)(network, task, trial.budget)
    return candidate.cpu() if elsewhere else candidate


def trains(trial: Trial) -> bool:
    """Whether the trial spends its budget on training."""
    return trial.slug == CONTROL or (trial.slug != ORIGINAL and catalogue.method(trial.slug).trains)


def at_most(trial: Trial) -> AbstractContextManager[None]:
    """The time that a trial's method has: what its budget says and its study has left."""
    limits = [s for s in (trial.budget.seconds, trial.allowed) if s is not None]
    return within(min(limits, default=None))


def _goal(trial: Trial) -> str:
    if trial.slug in (ORIGINAL, CONTROL):
        return trial.settings.get("goal", "")
    return catalogue.method(trial.slug).goal


def halves(task: Task) -> tuple[Task, Task]:
    """The task twice, with one half of the validation examples each; always the same halves."""
    order = torch.randperm(len(task.val), generator=torch.Generator().manual_seed(0))
    middle = len(order) // 2
    parts = (order[:middle].sort().values, order[middle:].sort().values)
    first, second = (dataclasses.replace(task, val=task.val.select(part)) for part in parts)
    return first, second


def onnx_file(network: nn.Module, task: Task, signature: Signature | None = None) -> tuple[bytes, float]:
    """The network's export, which takes the data as they are (the task's normalisation in front), and how far its
    outputs are from the network's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ONNX
        written = export(network, task.raw().example(2), path, task.front, signature=signature)
        return path.read_bytes(), written.max_error


def run_analysis_trial(trial: Trial, network: nn.Module, task: Task) -> Outcome:
    """Run an Analysis on the validation data; keep what it found."""
    if catalogue.method(trial.slug).networks > 1:
        raise NotApplicable("it compares two networks, and one was given")
    with at_most(trial):
        finding = built(trial)(network, task.val)
    content = json.dumps(finding.to_json()).encode()
    return Outcome(finding.figures, files={FINDING: content}, note=finding.sentence)


def run_explainer_trial(trial: Trial, network: nn.Module, task: Task) -> Outcome:
    """Run an Explainer on the first validation examples.

    figures: mean faithfulness scores and their standard errors (NAME_error), weights_similarity (how much the maps
    stay the same when all that was learned is gone: high means that they do not explain this network), and
    seconds_per_example.
    """
    from netwright.explain.parts.faithfulness import similarity_after_randomising

    explainer = built(trial)
    inputs = task.example(EXPLAINED)
    given = inputs if len(inputs) > 1 else inputs[0]
    start = time.monotonic()
    with at_most(trial):
        explanation = explainer(network, given)
    count = len(inputs[0])
    figures = {"seconds_per_example": (time.monotonic() - start) / count}
    for name, values in explanation.scores.items():
        figures[name] = values.mean().item()
        figures[f"{name}_error"] = values.std().item() / count**0.5
    similarity = similarity_after_randomising(explainer, network, given, seed=trial.seed)
    figures["weights_similarity"] = similarity.mean().item()
    return Outcome(figures)


def run_verifier_trial(trial: Trial, network: nn.Module, task: Task) -> Outcome:
    """Run a Verifier on boxes around the first validation examples.

    figures: clean, attacked and certified accuracy (this of verifiers that prove) within the radius, and the radius:
    the trial's setting, else `default_radius`.
    """
    from netwright.verify.parts.certify import certified_accuracy

    settings = dict(trial.settings)
    radius = settings.pop(RADIUS, default_radius(task))
    verifier = built(dataclasses.replace(trial, settings=settings))
    with at_most(trial):
        found = certified_accuracy(
            network, task, radius, verifier, trial.budget, examples=VERIFIED, role="val"
        )
    figures = {"clean": found.clean, "attacked": found.attacked, "radius": radius}
    if found.certified is None:
        return Outcome(figures)
    open_ = found.verdict.count("unknown")
    note = f"{open_} of {number_of(found.examples, 'example')} neither broken nor proved" if open_ else ""
    return Outcome(figures | {"certified": found.certified}, note=note)


def default_radius(task: Task) -> float:
    """Two grey levels of an image; a hundredth of the input's unit otherwise."""
    return 2 / 255 if task.meaning == "image" and task.normalise is not None else 0.01


OTHERS: dict[str, Callable[[Trial, nn.Module, Task], Outcome]] = {
    "Analysis": run_analysis_trial,
    "Explainer": run_explainer_trial,
    "Verifier": run_verifier_trial,
}
