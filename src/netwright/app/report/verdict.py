"""What `improve` says of its result: whether what was asked is met, in one sentence, and the lines of figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from netwright.app import words
from netwright.app.deployment import Deployment
from netwright.app.report import report
from netwright.core.budget import Target
from netwright.core.measure.paired import Change, changes, judged
from netwright.core.plural import number_of
from netwright.core.task import Task

Figures = dict[str, Any]


def changes_of(tested: Mapping[str, tuple[Tensor, Tensor]], task: Task) -> dict[str, Change]:
    """How the metrics moved from 'before' to 'after', whose outputs and targets are of the same examples."""
    before, after = (judged(*tested[name], task.kind) for name in ("before", "after"))
    return changes(before, after, task.outputs if task.kind == "multilabel" else 1)


def judge(
    before: Figures,
    after: Figures,
    target: Target,
    metric: str,
    moved: Mapping[str, Change],
    *,
    fresh: bool = True,
    deployment: Deployment = Deployment(),  # noqa: B008  frozen
) -> tuple[bool, str]:
    """Whether what was asked is met by the written files, on test data, in words.

    moved: each metric, on the test examples, the primary one first. fresh: the given network cannot have learned from
    those. deployment: in which the latencies were measured.
    """
    faster, smaller = 1 / after["onnx_ratio"], before["bytes"] / after["bytes"]
    drop = before[metric] - after[metric]
    met = (
        (target.faster is None or faster >= target.faster)
        and (target.smaller is None or smaller >= target.smaller)
        and (target.max_drop is None or drop <= target.max_drop + 1e-9)
    )
    parts = [
        words.speeds(after, target.faster) + ("" if deployment.usual else f" ({deployment})"),
        words.size_change(before["bytes"], after["bytes"], target.smaller),
        ", ".join(
            words.changed(name, change, target.max_drop if name == metric else None)
            for name, change in moved.items()
        ),
    ]
    examples = next(iter(moved.values())).examples
    seen = "never used before" if fresh else "that the given network may have seen"
    return met, f"{'; '.join(parts)} on {number_of(examples, 'test example')} {seen}."


def line(when: str, figures: Figures, metric: str, more: str = "") -> str:
    """'before   97.8 % accuracy   0.410 ms   4.3 MB   ECE 3.1 %' for the terminal."""
    value = f"{words.figure(metric, figures[metric])} {words.NAMES[metric]}"
    if metric == "r2":
        value = "   ".join(
            f"{words.NAMES[m]} {words.figure(m, figures.get(m))}" for m in ("r2", "mae", "rmse")
        )
    latency, size = f"{figures['onnx_latency_ms']:.3f} ms", report.size_text(figures["bytes"])
    ece = f"   ECE {100 * figures['ece']:.1f} %{more}" if "ece" in figures else ""
    return f"  {when}   {value}   {latency}   {size}{ece}"
