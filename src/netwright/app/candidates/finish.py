"""The end of `improve`: the winner's files, the figures of both networks on test data, in the time that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from netwright.app.candidates.calibrated import calibrated
from netwright.app.candidates.run import ONNX, ORIGINAL
from netwright.app.clock import Clock, TimeUp, cut_off
from netwright.app.deployment import Deployment
from netwright.core.budget import within
from netwright.core.errors import NotApplicable
from netwright.core.files.checkpoint import atomic
from netwright.core.files.export import export
from netwright.core.files.facts import signature_for
from netwright.core.files.load import load
from netwright.core.files.proof import TOLERANCE
from netwright.core.measure.cost import cost, latency
from netwright.core.metrics import outputs_of, outputs_of_file, score
from netwright.core.plural import number_of
from netwright.core.signature import Signature
from netwright.core.split import take
from netwright.core.study.study import Study
from netwright.core.task import Task
from netwright.core.weights.packed import Packed

Row = dict[str, Any]
MODEL, PROGRAM = "model.onnx", "model.pt2"
_PROBE = 256  # test examples by which the pace of a file is measured
_LATE = "no time was left"


@dataclass(frozen=True)
class Written:
    """The network that is handed over; max_error: how far its ONNX file's outputs are from its own."""

    network: nn.Module
    calibration: str
    max_error: float


def write(study: Study, row: Row, given: nn.Module, task: Task, out: Path, clock: Clock) -> Written:
    """Write the network of a row as ONNX: calibrated, or, where no time is left for that, the file that its trial left.
    given: the network that the user gave, which the row of the original stands for."""
    candidate = given if row["slug"] == ORIGINAL else study.network(row["key"])
    once = row["seconds"] - row["method_seconds"]  # what evaluation and export took in the trial
    rest = clock.closing + once / 4  # for the test data and the report
    network, calibration, error = candidate, f"not calibrated: {_LATE}", row["export_max_error"]
    if row["slug"] == ORIGINAL:
        calibration = "not calibrated"
    elif clock.at_most > 1.5 * once + rest:
        try:
            with cut_off(clock.last - once / 2 - rest):
                network, calibration = calibrated(candidate, task)
                if network is not candidate:
                    error = _export(network, task, out / MODEL, signature_for(given, task))
        except TimeUp:
            network, calibration = candidate, f"not calibrated: {_LATE}"
        except NotApplicable as reason:
            network, calibration = candidate, f"not calibrated: {reason}"
    if network is candidate:
        with atomic(out / MODEL) as path:
            path.write_bytes(study.file(row["key"], ONNX))
    return Written(network, calibration, error)


def program(
    network: nn.Module, given: nn.Module, task: Task, out: Path, clock: Clock
) -> tuple[float, tuple[str, ...]]:
    """Write the network as .pt2, once the figures are known, if there is time and the network allows it: how far its
    outputs are from the network's, and a note where there is no such file, or where it rounds otherwise."""
    try:
        with cut_off(clock.last - clock.closing / 2):
            error = _export(network, task, out / PROGRAM, signature_for(given, task))
    except TimeUp:
        return 0.0, (
            f"{PROGRAM} was not written: {_LATE}; a larger --budget writes it, or netwright's export",
        )
    except NotApplicable as reason:
        return 0.0, (f"{PROGRAM} was not written: {reason}",)
    if any(isinstance(module, Packed) for module in network.modules()):
        notes: tuple[str, ...] = ()
        with suppress(TimeUp), cut_off(clock.last - clock.closing / 2):
            for examples in (_PROBE, 8 * _PROBE):  # more if there is time: it may be one row in some hundreds
                notes = _apart(out, task, examples)
        return error, notes
    return error, ()


def _export(network: nn.Module, task: Task, path: Path, signature: Signature) -> float:
    return export(network, task.raw().example(2), path, task.front, signature=signature).max_error


def _apart(out: Path, task: Task, examples: int) -> tuple[str, ...]:
    """On how many validation examples the two files of an 8-bit network differ; nothing where on none."""
    rows = take(task.raw().val, examples)
    there, _ = outputs_of_file(out / MODEL, rows)
    here, _ = outputs_of(load(out / PROGRAM), rows)
    error = (here - there).abs().flatten(1).amax(1) / there.abs().amax()
    apart = int((error > TOLERANCE).sum())
    if not apart:
        return ()
    return (
        f"{PROGRAM} and {MODEL} differ on {apart} of {number_of(len(error), 'validation example')}, by up to "
        f"{float(error.max()):.1g} of the largest output: a value between two steps of 8 bits is rounded up by the "
        "one and down by the other",
    )


def tested(
    files: Mapping[str, Path], task: Task, clock: Clock
) -> tuple[dict[str, tuple[Tensor, Tensor]], tuple[str, ...]]:
    """Outputs and targets of the files on the test split; on a seeded sample of it, and a note that says so, where
    time forbids more."""
    split, notes = task.raw().test, ()
    if len(split) > 2 * _PROBE:
        start = time.monotonic()
        for path in files.values():
            outputs_of_file(path, take(split, _PROBE))
        each = (time.monotonic() - start) / _PROBE
        share = max(0.2 * clock.left, 0.3 * (clock.at_most - clock.closing))
        count = max(_PROBE, int(share / each))
        if count < len(split):
            notes = (
                f"tested on {count:,} of {len(split):,} test examples (a seeded choice): {_LATE} for all of them",
            )
            split = take(split, count, seed=0)
    return {name: outputs_of_file(path, split) for name, path in files.items()}, notes


def figures(
    networks: Mapping[str, nn.Module],
    files: Mapping[str, Path],
    outputs: Mapping[str, tuple[Tensor, Tensor]],
    task: Task,
    clock: Clock,
    use: Deployment,
) -> list[dict[str, Any]]:
    """The figures of result.json for both networks: metrics of the files, latency timed in turn."""
    how: dict[str, Any] = {"batch": use.batch, "threads": use.threads}
    seconds = max(0.5, (clock.at_most - clock.closing) / 5)
    with within(2 * seconds):
        example = task.raw().example(use.batch)
        onnx = latency(list(files.values()), example, "onnx", **how, rounds=200, seconds=min(20.0, seconds))
    with within(2 * seconds):
        example = task.example(use.batch)
        eager = latency(
            list(networks.values()), example, "torch", **how, rounds=60, seconds=min(10.0, seconds)
        )
    found = []
    for i, name in enumerate(networks):
        counted = cost(networks[name], task.example(1))
        found.append({
            **score(*outputs[name], task.kind), "onnx_latency_ms": onnx.median_ms[i],
            "torch_latency_ms": eager.median_ms[i], "onnx_ratio": onnx.ratio[i], "onnx_spread": onnx.spread[i],
            "onnx_interval": onnx.interval[i], "torch_ratio": eager.ratio[i], "torch_spread": eager.spread[i],
            "torch_interval": eager.interval[i],
            "bytes": files[name].stat().st_size, "parameters": counted.parameters,
            "macs": counted.macs, "peak_activation_bytes": counted.peak_activation_bytes,
        })  # fmt: skip
    return found
