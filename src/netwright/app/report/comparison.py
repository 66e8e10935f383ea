"""What `compare` leaves in a folder: report.html for people and compare.json for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from netwright.app.candidates.beside import note_of
from netwright.app.report import table
from netwright.app.report.document import machine, versions
from netwright.app.report.standings import Standings
from netwright.core.files.checkpoint import atomic
from netwright.core.measure.machine import instruction_sets, processor_name
from netwright.core.plural import number_of


def write(comparison: Standings, folder: Path) -> None:
    """report.html and compare.json, each whole or not at all."""
    with atomic(folder / "compare.json") as path:
        path.write_text(json.dumps(document(comparison), indent=1, default=str) + "\n", encoding="utf-8")
    with atomic(folder / "report.html") as path:
        path.write_text(render(comparison), encoding="utf-8")


def document(comparison: Standings) -> dict[str, Any]:
    """The content of compare.json."""
    return comparison.to_json() | {
        "why_best": comparison.why_best, "footnotes": table.footnotes(comparison),
        "budget_seconds": comparison.budget.seconds, "validation_examples": comparison.examples,
        "seed": _seed(comparison), "versions": versions(), "machine": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def render(comparison: Standings) -> str:
    """The report's HTML; plotly is inside it where there is something to plot."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup
    from plotly.io import to_html
    from plotly.offline import get_plotlyjs

    plot = ""
    if comparison.pareto:
        figure = table.pareto_plot(comparison)
        plot = Markup(to_html(figure, full_html=False, include_plotlyjs=False, config={"displaylogo": False}))
    environment = Environment(loader=PackageLoader("netwright.app"), autoescape=True)
    return environment.get_template("compare.html").render(
        c=_view(comparison), pareto=plot, plotly_js=Markup(get_plotlyjs()) if plot else ""
    )


def _view(comparison: Standings) -> dict[str, Any]:
    best, seconds = comparison.best, comparison.budget.seconds
    examples = number_of(comparison.examples, "validation example")
    return {
        "title": table.title(comparison).removesuffix(", validation data"),
        "budget": "without a limit of time" if seconds is None else f"within {seconds:.0f} s for all methods",
        "late": comparison.late,
        "best": None if best is None else best.label,
        "why": comparison.why_best.removeprefix("chosen: "),
        "chooses": comparison.original is not None,
        "warnings": warnings(comparison),
        "judged": f"Measured on {examples}; test data were not touched."
        if comparison.goal not in ("explain", "verify", "inspect")
        else "Measured on validation examples; test data were not touched.",
        "columns": [name for name, _ in table.columns(comparison)],
        "rows": [_row(comparison, mark, row, cells) for mark, row, cells in table.lines(comparison)],
        "footnotes": [line for line in table.footnotes(comparison) if not line.startswith("★")],
        "load": _load(comparison),
        "versions": versions(), "machine": machine(), "date": datetime.now(UTC).date().isoformat(),
        "made": [
            ("seed", _seed(comparison)),
            ("processor", f"{processor_name()} ({', '.join(instruction_sets()) or 'no known vector sets'})"),
            *versions().items(),
        ],
    }  # fmt: skip


def _row(comparison: Standings, mark: str, row: dict[str, Any], cells: list[str]) -> dict[str, Any]:
    return {
        "mark": mark, "label": row["label"], "cells": cells, "trouble": "" if cells else table.trouble(row),
        "note": note_of(row, comparison.original) if cells else "", "bad": bool(row.get("blown_up")),
        "reference": row["key"] not in {r["key"] for r in comparison.rows},
    }  # fmt: skip


def warnings(comparison: Standings) -> list[str]:
    """What a reader must know before believing a figure."""
    blown = [
        f"{row['label']}: its probabilities have blown up" for row in comparison.rows if row.get("blown_up")
    ]
    return [*comparison.seen.warnings, *blown]


def _seed(comparison: Standings) -> str:
    return comparison.study.record.question.get("seed", "")


_LOAD = """import netwright as nw
study = nw.Study("{path}")
# {label}: a torch.nn.Module; {takes}
network = study.network("{key}")"""

_EXPORT = """task = nw.task("{task}")   # the task of this comparison, by its name or path
nw.export(network, task.raw().example(2), "model.onnx", task.front)   # takes the data as they are; .pt2 likewise"""


def _load(comparison: Standings) -> list[str]:
    """Code that brings the best network (or the first one that there is) back."""
    from netwright.core.study.worker import NETWORK

    able = [row for row in comparison.rows if row["status"] == "done" and NETWORK in row["files"]]
    if not able:
        return []
    best = comparison.best
    row = able[0] if best is None else best.row
    takes = "it takes normalised inputs" if comparison.task.normalise else "it takes the data as they are"
    load = _LOAD.format(path=comparison.study.path.name, key=row["key"], label=row["label"], takes=takes)
    return [load, _EXPORT.format(task=comparison.task.name)]
