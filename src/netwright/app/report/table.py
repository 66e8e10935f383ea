"""A comparison as a table for terminals, a table with its Pareto plot for notebooks."""

from __future__ import annotations

import html as markup
import math
from collections.abc import Callable
from typing import Any

from netwright.app import words
from netwright.app.candidates.beside import change_cell, note_of
from netwright.app.candidates.control import CONTROL, remark
from netwright.app.candidates.run import ORIGINAL
from netwright.app.report.report import percent, size_text
from netwright.app.report.scatter import Series, scatter
from netwright.app.report.standings import Standings
from netwright.core.plural import number_of
from netwright.core.study.study import Row

Column = tuple[str, Callable[[Row], str]]


def number(figure: str, form: Callable[[float], str]) -> Callable[[Row], str]:
    """A cell that is empty where the figure is missing."""

    def cell(row: Row) -> str:
        value = row.get(figure)
        return "" if value is None or math.isnan(value) else form(value)

    return cell


def with_error(figure: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        if figure not in row:
            return ""
        return f"{row[figure]:.2f} ±{row.get(f'{figure}_error', math.nan):.2f}"

    return cell


def latency_cell(row: Row) -> str:
    if "onnx_latency_ms" not in row:
        return ""
    return f"{row['onnx_latency_ms']:.3g} ms"


def faster_cell(row: Row) -> str:
    """How many times faster than the original, with the 95 % interval; 'level' where 1 lies inside it."""
    return "" if row["slug"] == ORIGINAL else words.faster_cell(row, bounds=True)


def columns(comparison: Standings) -> list[Column]:
    """What the table shows of a row that ended well, by the goal."""
    metric = comparison.task.primary
    of = lambda name: (words.NAMES[name], number(name, lambda v: words.figure(name, v)))
    quality: list[Column] = [of(name) for name in (("r2", "mae", "rmse") if metric == "r2" else (metric,))]
    quality.append(("change [95 %]", lambda row: change_cell(row, metric)))
    seconds: Column = ("seconds", number("seconds", lambda v: f"{v:.0f}"))
    nll: Column = ("nll", number("nll", lambda v: f"{v:.4g}"))
    ece: Column = ("ECE", number("ece", lambda v: f"{100 * v:.2f} %"))
    known = lambda *some: [c for c in some if any(c[0].lower() in row for row in comparison.rows)]
    if comparison.goal == "compress":
        return [
            *quality, ("ONNX Runtime", latency_cell), ("faster", faster_cell),
            ("size", number("bytes", size_text)), *known(ece), seconds,
        ]  # fmt: skip
    if comparison.goal == "explain":
        return [
            ("deletion ↓", with_error("deletion")), ("insertion ↑", with_error("insertion")),
            ("ignores weights?", number("weights_similarity", lambda v: f"{'yes' if v > 0.5 else 'no'} ({v:.2f})")),
            ("s/example", number("seconds_per_example", lambda v: f"{v:.2g}")),
        ]  # fmt: skip
    if comparison.goal == "verify":
        shares: list[Column] = [(n, number(n, percent)) for n in ("clean", "attacked", "certified")]

        return [*shares, ("radius", number("radius", lambda v: f"{v:.4f}")), seconds]
    if comparison.original is None:
        return [("figures", all_figures), seconds]
    return [*quality, *known(nll, ece), seconds]


_FIXED = {"seed", "seconds", "memory"}


def all_figures(row: Row) -> str:
    found = {k: v for k, v in row.items() if isinstance(v, float) and k not in _FIXED}
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found.items())


def lines(comparison: Standings) -> list[tuple[str, Row, list[str]]]:
    """(mark, row, cells): the original first, then the candidates, the best by the goal's first figure on top,
    then what did not end well."""
    chosen = comparison.best
    low, high = comparison.axes
    order = (
        (lambda r: -r.get(high, -math.inf))
        if comparison.goal in ("adapt", "train")
        else (lambda r: r.get(low or "", math.inf))
    )
    good = sorted((r for r in comparison.rows if r["status"] == "done"), key=order)
    bad = [r for r in comparison.rows if r["status"] != "done"]
    original = [row for row in (comparison.original, comparison.control) if row is not None]
    cells = [cell for _, cell in columns(comparison)]
    found = []
    for row in (*original, *good, *bad):
        mark = "★" if chosen is not None and row["key"] == chosen.row["key"] else ""
        found.append((mark, row, [cell(row) for cell in cells] if row["status"] == "done" else []))
    return found


def trouble(row: Row) -> str:
    """'not applicable: needs ...', 'failed after 41 s: ...'."""
    after = f" after {row['seconds']:.0f} s" if row["status"] != "not applicable" else ""
    return f"{row['status']}{after}: {row['reason']}"


def footnotes(comparison: Standings) -> list[str]:
    """What the marks in the table mean, where they occur: the star, ties with it, '(level)'."""
    said = []
    if comparison.best is not None:
        said.append(f"★ {comparison.best.row['label']}: {comparison.why_best}")
        if beaten := remark(comparison.control, comparison.best.row, comparison.task.primary):
            said.append(f"{beaten[0].upper()}{beaten[1:]}.")
    if comparison.goal == "compress":
        said.append(f"ONNX Runtime: one call, {comparison.deployment}, timed in turn with the original")
    if level := words.level_line(row for row in comparison.rows if row["status"] == "done"):
        said.append(level)
    if any(f"{comparison.task.primary}_change" in row for row in comparison.rows):
        same = f"the same {number_of(comparison.examples, 'validation example')}"
        unit = ", in points" if comparison.task.primary == "accuracy" else ""
        said.append(f"change: over the original, on {same}, with its 95 % interval{unit}")
    if comparison.goal == "verify":
        said.append(
            "attacked: right under the attack of the method; certified: proved right, empty for a mere attack"
        )
    return said


def title(comparison: Standings) -> str:
    methods = number_of(len(comparison.rows), "method")
    return f"{comparison.goal}: {methods} on {comparison.task.name}, validation data"


def rich_table(comparison: Standings) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title(comparison), title_justify="left", box=None, header_style="bold")
    table.add_column("")
    table.add_column("method")
    for name, _ in columns(comparison):
        table.add_column(name, justify="left" if name == "figures" else "right", no_wrap=name != "figures")
    below = []
    for mark, row, cells in lines(comparison):
        if cells:
            style = "bold green" if mark else "dim" if row["slug"] in (ORIGINAL, CONTROL) else ""
            table.add_row(mark, Text(row["label"]), *cells, style=style)
        else:
            below.append(Text(f"  {row['label']}: {trouble(row)}", style="yellow"))
        if cells and (note := note_of(row, comparison.original)):
            below.append(Text(f"  {row['label']}: {note}", style="yellow" if row.get("blown_up") else "dim"))
    below += [Text(f"  {line}", style="dim") for line in footnotes(comparison)]
    if comparison.late:
        below.append(Text(f"  {untried(comparison)}", style="yellow"))
    return Group(table, *below)


def untried(comparison: Standings) -> str:
    return f"not tried, for want of time: {', '.join(comparison.late)}"


def html(comparison: Standings) -> str:
    """The table and, where there is one, the Pareto plot, as one small piece that needs nothing else."""
    escape = markup.escape
    names = ["", "method", *(name for name, _ in columns(comparison))]
    parts = [f"<table><caption>{escape(title(comparison))}</caption><tr>"]
    parts += [f"<th>{escape(name)}</th>" for name in names] + ["</tr>"]
    for mark, row, cells in lines(comparison):
        label = f"<td>{mark}</td><td style='text-align:left'>{escape(row['label'])}</td>"
        rest = (
            "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            if cells
            else f"<td colspan='{len(names) - 2}' style='text-align:left'>{escape(trouble(row))}</td>"
        )
        parts.append(f"<tr>{label}{rest}</tr>")
    parts.append("</table>")
    parts += [f"<p>{escape(line)}</p>" for line in (*notes(comparison), *footnotes(comparison))]
    if comparison.late:
        parts.append(f"<p>{escape(untried(comparison))}</p>")
    if comparison.pareto:
        x, y = axis_titles(comparison)
        parts.append(scatter(series(comparison), x, y))
    return "".join(parts)


def notes(comparison: Standings) -> list[str]:
    """What is to be said of single rows."""
    done = (row for row in comparison.rows if row["status"] == "done")
    return [f"{row['label']}: {note}" for row in done if (note := note_of(row, comparison.original))]


def series(comparison: Standings) -> list[Series]:
    """Every row in the goal's two figures, the front as a line, the original and the best marked."""
    x, y = comparison.axes
    chosen, original = comparison.best, comparison.original
    able = [r for r in comparison.rows if r["status"] == "done" and x in r and y in r]
    front = sorted(comparison.pareto, key=lambda r: r[x])
    starred = [] if chosen is None else [r for r in able if r["key"] == chosen.row["key"]]
    given = [original] if original is not None and x in original else []
    of = lambda name, rows, **how: Series(
        name, [r[x] for r in rows], [r[y] for r in rows], [r["label"] for r in rows], **how
    )
    return [
        of("Pareto front", front, colour="#9aa7b4", line=True),
        of("candidates", [r for r in able if r not in starred]),
        of("best", starred, colour="#1a7f4b", mark="star"),
        of("original", given, colour="#b3402a", mark="diamond"),
    ]


def axis_titles(comparison: Standings) -> tuple[str, str]:
    x, y = comparison.axes
    said = {
        "onnx_latency_ms": "latency in ONNX Runtime, ms",
        "method_seconds": "seconds that the method took",
        "nll": "negative log likelihood",
    }
    return said.get(x or "", x or ""), f"{words.NAMES.get(y or '', y)} on validation data"


def pareto_plot(comparison: Standings) -> Any:
    """`series` as a plotly figure."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for s in series(comparison):
        if s.line:
            figure.add_scatter(
                x=s.x, y=s.y, mode="lines", name=s.name, line={"dash": "dot", "color": s.colour}
            )
            continue
        marker = {"size": 18 if s.mark == "star" else 12, "color": s.colour}
        figure.add_scatter(
            x=s.x, y=s.y, mode="markers", name=s.name, text=s.labels,
            marker=marker | ({} if s.mark == "dot" else {"symbol": s.mark}),
            hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
        )  # fmt: skip
    x, y = axis_titles(comparison)
    figure.update_layout(
        template="simple_white", height=460, xaxis_title=x, yaxis_title=y, margin={"l": 60, "r": 20, "t": 30, "b": 50},
        legend={"orientation": "h", "y": -0.2},
    )  # fmt: skip
    return figure
