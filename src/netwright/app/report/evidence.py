"""What the report shows beyond figures: reliability, layers that changed, heat maps, the table of trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netwright.app import words
from netwright.app.candidates.beside import change_cell
from netwright.app.candidates.choose import Choice
from netwright.app.feeding.opening import Subject
from netwright.app.report.report import data_uri, size_text
from netwright.core import catalogue
from netwright.core.errors import NotApplicable
from netwright.core.metrics import Reliability, reliability, top_label
from netwright.core.network import as_tuple
from netwright.core.task import Task
from netwright.explain.parts.overlay import png

PICTURES = 6


def reliabilities(
    tested: dict[str, tuple[Tensor, Tensor]], task: Task
) -> tuple[Reliability, Reliability] | None:
    """Reliability on the test split, before and after; classifiers only."""
    if task.kind != "classification":
        return None
    both = [
        reliability(*top_label(outputs.double().softmax(1), targets)) for outputs, targets in tested.values()
    ]
    return both[0], both[1]


def layers(before: nn.Module, after: nn.Module) -> list[dict[str, str]]:
    """Tensors whose shape or type differs, by name; a calibration layer wraps the network, so names are matched
    by their endings."""
    old, new = before.state_dict(), after.state_dict()
    rows = []
    for name, a in old.items():
        match = next((k for k in new if k == name or k.endswith(f".{name}")), None)
        if match is None:
            rows.append({"name": name, "before": shape_text(a), "after": "in another form", "kept": ""})
            continue
        b = new[match]
        if a.shape != b.shape or a.dtype != b.dtype:
            kept = f"{100 * b.numel() / max(1, a.numel()):.0f} %"
            rows.append({"name": name, "before": shape_text(a), "after": shape_text(b), "kept": kept})
    return rows


def shape_text(tensor: Tensor) -> str:
    return f"{' x '.join(map(str, tensor.shape)) or 'scalar'} {str(tensor.dtype).removeprefix('torch.')}"


def heat_maps(before: nn.Module, after: nn.Module, task: Task) -> tuple[list[dict[str, str]], str]:
    """The same pictures explained before and after, or why not."""
    if task.meaning != "image" or task.kind != "classification":
        return [], ""
    inputs, targets = next(iter(task.test.batches(PICTURES)))
    names = task.classes
    try:
        method = catalogue.method("grad-cam").build(steps=0)
        seen = [method(network, inputs, targets) for network in (before, after)]
    except NotApplicable:
        return [], ""
    with torch.no_grad():
        guesses = [network(*as_tuple(inputs)).argmax(1) for network in (before, after)]
    pictures = as_tuple(inputs)[0]
    maps = []
    for i in range(len(pictures)):
        maps.append({
            "image": data_uri(png(pictures[i], torch.zeros_like(seen[0].attribution[i]))),
            "before": data_uri(png(pictures[i], seen[0].attribution[i])),
            "after": data_uri(png(pictures[i], seen[1].attribution[i])),
            "caption": f"{names[targets[i]]}: before {names[guesses[0][i]]}, after {names[guesses[1][i]]}",
        })  # fmt: skip
    line = "Grad-CAM for the true class at the last convolution: the test picture, the network before, and after."
    return maps, line


def notes(subject: Subject, machine: dict[str, Any], more: Sequence[str] = ()) -> list[str]:
    """What a reader should know before comparing with other machines. more: clauses to say as well."""
    said = [f"{line[0].upper()}{line[1:]}." for line in (subject.note, *more) if line]
    sets = machine["instruction_sets"]
    if "AVX2" in sets and not any("VNNI" in s or "AMX" in s for s in sets):
        said.append(
            "This processor has no instructions for 8-bit products (VNNI), so int8 networks are smaller here, but "
            "seldom faster; on one that has them, the same command can come to another choice."
        )
    return said


def trial_table(rows: list[dict[str, Any]], choice: Choice, metric: str) -> Any:
    """The candidates for the terminal: the chosen one starred, the others with the reason why not."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    table.add_column("candidate", max_width=44)
    for name in (words.NAMES[metric], "change [95 %]", "ms", "faster", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", style="dim", overflow="fold")
    for row in sorted(rows, key=lambda r: (r["status"] != "done", r.get("onnx_latency_ms", 0.0))):
        star = "★" if choice.row is not None and row["key"] == choice.row["key"] else ""
        cells = ["", "", "", "", ""]
        if row["status"] == "done":
            cells = [
                words.figure(metric, row.get(metric)), change_cell(row, metric),
                f"{row['onnx_latency_ms']:.3f}" if "onnx_latency_ms" in row else "",
                words.faster_cell(row), size_text(row["bytes"]) if "bytes" in row else "",
            ]  # fmt: skip
        table.add_row(star, row["label"], *cells, choice.why.get(row["key"], ""))
    below = words.level_line([row for row in rows if row["status"] == "done"])
    return Group(table, *([Text(f"  {below}", style="dim")] if below else []))
