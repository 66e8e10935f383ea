"""What `improve` gives back, and what a notebook shows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

from netwright.app import words
from netwright.app.candidates.beside import change_cell
from netwright.app.report import report
from netwright.core.measure.paired import Change
from netwright.core.task import Task

Row = dict[str, Any]
STYLE = "text-align:left;vertical-align:top"


@dataclass(repr=False)
class Result:
    """What came of it. `network` is the improved one; `folder` holds the files."""

    network: nn.Module
    task: Task
    met: bool
    sentence: str
    method: str
    before: dict[str, Any]
    after: dict[str, Any]
    folder: Path
    trials: list[Row]
    document: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of result.json."""
        return self.document

    def __repr__(self) -> str:
        return f"Result({'met' if self.met else 'NOT met'}: {self.sentence} Files: {self.folder})"

    def _repr_html_(self) -> str:
        """The verdict, before and after, the candidates. Short."""
        metric = self.task.primary
        changes = {
            name: Change(**self.document[f"{name}_change"])
            for name in words.NAMES
            if f"{name}_change" in self.document
        }
        colour = "#1a7f4b" if self.met else "#b3402a"
        said = escape(self.sentence)
        parts = [
            f'<p style="border-left:4px solid {colour};padding-left:.6em"><b>{"Met" if self.met else "Not met"}:</b> '
            f"{said}</p>"
        ]
        told = [*self.document.get("warnings", ()), *self.document.get("remarks", ())]
        parts += [f"<p>⚠ {escape(line)}</p>" for line in told]
        rows = report.comparison(self.before, self.after, changes)
        parts.append(
            table(
                ["", "before", "after", "change"],
                [[r["name"], r["before"], r["after"], r["change"]] for r in rows],
            )
        )
        trials = [
            [
                ("★ " if str(t.get("why", "")).startswith("chosen") else "") + t["label"],
                words.figure(metric, t.get(metric)), change_cell(t, metric), words.faster_cell(t),
                report.size_text(t["bytes"]) if "bytes" in t else "", t.get("why", ""),
            ]
            for t in self.trials
        ]  # fmt: skip
        parts.append(
            table(["candidate", words.NAMES[metric], "change [95 %]", "faster", "size", "why"], trials)
        )
        parts.append(f"<p>Files: {escape(str(self.folder))} (report.html tells the rest)</p>")
        return "".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of texts."""
    cells = lambda row, tag: "".join(f'<{tag} style="{STYLE}">{escape(text)}</{tag}>' for text in row)
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{cells(head, 'th')}</tr>{body}</table>"
