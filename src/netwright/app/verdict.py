"""What `improve` says of its result: whether what was asked is met, in one sentence, and the lines of figures."""

from __future__ import annotations

from typing import Any

from netwright.app import report
from netwright.core.budget import Target

Figures = dict[str, Any]


def judge(before: Figures, after: Figures, target: Target, metric: str, examples: int) -> tuple[bool, str]:
    """Whether what was asked is met by the written files, on test data, in words."""
    faster, smaller = 1 / after["onnx_ratio"], before["bytes"] / after["bytes"]
    drop = before[metric] - after[metric]
    met = (
        (target.faster is None or faster >= target.faster)
        and (target.smaller is None or smaller >= target.smaller)
        and (target.max_drop is None or drop <= target.max_drop + 1e-9)
    )
    digits = 1 if met else 2  # what is missed by a hair must not read as if it were met
    moved = f"{abs(100 * drop):.{digits}f} points {'less' if drop > 0 else 'more'} accurate"
    parts = [
        f"{faster:.{digits}f}x faster",
        f"{smaller:.{digits}f}x smaller",
        "equally accurate" if drop == 0 else moved,
    ]
    return met, f"{', '.join(parts)} on {examples} test examples never used before."


def line(when: str, figures: Figures, metric: str, more: str = "") -> str:
    """'before   97.8 % accuracy   0.410 ms   4.3 MB   ECE 3.1 %' for the terminal."""
    ece = f"ECE {100 * figures['ece']:.1f} %{more}" if "ece" in figures else ""
    value = report.percent(figures[metric])
    latency_text, size = f"{figures['onnx_latency_ms']:.3f} ms", report.size_text(figures["bytes"])
    return f"  {when}   {value} {metric}   {latency_text}   {size}   {ece}"
