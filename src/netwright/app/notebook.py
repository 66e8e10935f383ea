"""What a notebook shows of a result: the verdict, before and after, the candidates. Short."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from netwright.app import report, words
from netwright.app.beside import change_cell
from netwright.core.paired import Change

if TYPE_CHECKING:
    from netwright.app.result import Result

STYLE = "text-align:left;vertical-align:top"


def result_html(result: Result) -> str:
    metric = result.task.primary
    changes = {
        name: Change(**result.document[f"{name}_change"])
        for name in words.NAMES
        if f"{name}_change" in result.document
    }
    colour = "#1a7f4b" if result.met else "#b3402a"
    said = escape(result.sentence)
    parts = [
        f'<p style="border-left:4px solid {colour};padding-left:.6em"><b>{"Met" if result.met else "Not met"}:</b> '
        f"{said}</p>"
    ]
    told = [*result.document.get("warnings", ()), *result.document.get("remarks", ())]
    parts += [f"<p>⚠ {escape(line)}</p>" for line in told]
    rows = report.comparison(result.before, result.after, changes)
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
        for t in result.trials
    ]  # fmt: skip
    parts.append(table(["candidate", words.NAMES[metric], "change [95 %]", "faster", "size", "why"], trials))
    parts.append(f"<p>Files: {escape(str(result.folder))} (report.html tells the rest)</p>")
    return "".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of texts."""
    cells = lambda row, tag: "".join(f'<{tag} style="{STYLE}">{escape(text)}</{tag}>' for text in row)
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{cells(head, 'th')}</tr>{body}</table>"
