"""Latency of a study's candidates beside the original, measured when no trial runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from netwright.app.candidates.run import ONNX, ORIGINAL
from netwright.app.deployment import Deployment
from netwright.core import progress
from netwright.core.measure.latency import Backend, Latency, fixed_batch, latency
from netwright.core.study.study import Study
from netwright.core.task import Task

Row = dict[str, Any]


def time_candidates(
    study: Study,
    task: Task,
    deployment: Deployment = Deployment(),  # noqa: B008  frozen
    *,
    rounds: int = 50,
    seconds: float = 2.0,
) -> None:
    """Time what has not been timed yet, in turn with the original (original, A, B, ..., original, A, B, ...), in one
    process, as it will be used; and add to each row, for ONNX Runtime (`onnx_`) and PyTorch (`torch_`):

    onnx_ratio: time over the original's, the median round by round, with the spread of the rounds onnx_ratio_low,
    onnx_ratio_high (10 % and 90 % quantiles) and the median's 95 % interval onnx_interval_low, onnx_interval_high,
    which says whether there is a difference. onnx_latency_ms: the ratio times the original's latency when that was
    first measured, so that figures of different moments compare. faster: 1 / onnx_ratio.
    `seconds`: at most so long per network and backend. Nothing else may run meanwhile.
    """
    rows = [row for row in study.rows if row["status"] == "done"]
    original = next((row for row in rows if row["slug"] == ORIGINAL), None)
    if original is None:
        return
    if ONNX in original["files"]:
        path = lambda row: study.folder / row["key"] / ONNX
        able = [row for row in rows if ONNX in row["files"] and _takes(row, path(row), deployment)]
        _time(study, original, able, "onnx", path, task, deployment, rounds, seconds)
    network = lambda row: study.network(row["key"])
    _time(study, original, rows, "torch", network, task, deployment, rounds, seconds)


def _takes(row: Row, path: Path, use: Deployment) -> bool:
    """Whether a candidate's file takes such a batch; of the original's that it does not is an error."""
    timed = "onnx_latency_ms" in row or row["slug"] == ORIGINAL
    return timed or fixed_batch(path) in (None, use.batch)


def _time(
    study: Study, original: Row, rows: Sequence[Row], backend: Backend,
    open_: Callable[[Row], nn.Module | Path], task: Task, use: Deployment, rounds: int, seconds: float,
) -> None:  # fmt: skip
    figure = f"{backend}_latency_ms"
    left = [row for row in rows if figure not in row and row is not original]
    if figure in original and not left:
        return
    runtime = "ONNX Runtime" if backend == "onnx" else "PyTorch"
    progress.step(0, 1, f"timing {len(left) + 1} networks in {runtime}")
    candidates = [open_(row) for row in (original, *left)]
    example = (task.raw() if backend == "onnx" else task).example(use.batch)
    measured = latency(
        candidates, example, backend, batch=use.batch, threads=use.threads, rounds=rounds,
        seconds=seconds * len(candidates),
    )  # fmt: skip
    reference = original.get(figure, measured.median_ms[0])
    for place, row in enumerate((original, *left)):
        if figure not in row:
            study.add(row["key"], _figures(measured, place, backend, reference))


def _figures(measured: Latency, place: int, backend: str, reference: float) -> dict[str, float]:
    low, high = measured.spread[place]
    least, most = measured.interval[place]
    figures = {
        f"{backend}_latency_ms": measured.ratio[place] * reference,
        f"{backend}_ratio": measured.ratio[place],
        f"{backend}_ratio_low": low,
        f"{backend}_ratio_high": high,
        f"{backend}_interval_low": least,
        f"{backend}_interval_high": most,
    }
    return figures | ({"faster": 1 / measured.ratio[place]} if backend == "onnx" else {})
