"""A comparison as a table for terminals, a table with its Pareto plot for notebooks."""

from __future__ import annotations

import html as markup
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from netwright.app.report import percent, size_text
from netwright.core.study import Row

if TYPE_CHECKING:
    from netwright.app.compare import Comparison

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
    """How many times faster than the original, with the spread; 'level' where 1 lies inside it."""
    if "faster" not in row or row["slug"] == "original":
        return ""
    low, high = 1 / row["onnx_ratio_high"], 1 / row["onnx_ratio_low"]
    return f"{row['faster']:.2f}x" + (" (level)" if low <= 1 <= high else f" ({low:.2f}-{high:.2f})")


def columns(comparison: Comparison) -> list[Column]:
    """What the table shows of a row that ended well, by the goal."""
    metric = comparison.task.primary
    quality = number(metric, percent if metric == "accuracy" else lambda v: f"{v:.4f}")
    seconds: Column = ("seconds", number("seconds", lambda v: f"{v:.0f}"))
    calibration: list[Column] = [
        ("nll", number("nll", lambda v: f"{v:.4f}")), ("ECE", number("ece", lambda v: f"{100 * v:.2f} %")),
    ]  # fmt: skip
    if comparison.goal == "compress":
        return [
            (metric, quality), ("ONNX Runtime", latency_cell), ("faster", faster_cell),
            ("size", number("bytes", size_text)), ("ECE", calibration[1][1]), seconds,
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
    return [(metric, quality), *calibration, seconds]


_FIXED = {"seed", "seconds", "memory"}


def all_figures(row: Row) -> str:
    found = {k: v for k, v in row.items() if isinstance(v, float) and k not in _FIXED}
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found.items())


def lines(comparison: Comparison) -> list[tuple[str, Row, list[str]]]:
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
    original = [comparison.original] if comparison.original else []
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


def title(comparison: Comparison) -> str:
    return f"{comparison.goal}: {len(comparison.rows)} methods on {comparison.task.name}, validation data"


def rich_table(comparison: Comparison) -> Any:
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
            style = "bold green" if mark else "dim" if row["slug"] == "original" else ""
            table.add_row(mark, Text(row["label"]), *cells, style=style)
        else:
            below.append(Text(f"  {row['label']}: {trouble(row)}", style="yellow"))
        if cells and row["note"]:
            below.append(Text(f"  {row['label']}: {row['note']}", style="dim"))
    return Group(table, *below)


def html(comparison: Comparison) -> str:
    """The table and, where there is one, the Pareto plot; works offline."""
    from plotly.io import to_html

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
    if comparison.pareto:
        parts.append(to_html(pareto_plot(comparison), full_html=False, include_plotlyjs=True))
    return "".join(parts)


def pareto_plot(comparison: Comparison) -> Any:
    """Every row in the goal's two figures, the front as a line, the original and the best marked."""
    import plotly.graph_objects as go

    x, y = comparison.axes
    chosen, original = comparison.best, comparison.original
    able = [r for r in comparison.rows if r["status"] == "done" and x in r and y in r]
    front = sorted(comparison.pareto, key=lambda r: r[x])
    figure = go.Figure()
    figure.add_scatter(
        x=[r[x] for r in front], y=[r[y] for r in front], mode="lines", name="Pareto front",
        line={"dash": "dot", "color": "#9aa7b4"},
    )  # fmt: skip
    groups = {"candidates": (able, {"size": 11, "color": "#2f6db5"})}
    if chosen is not None:
        groups["best"] = ([chosen.row], {"size": 18, "symbol": "star", "color": "#1a7f4b"})
    if original is not None and x in original:
        groups["original"] = ([original], {"size": 13, "symbol": "diamond", "color": "#b3402a"})
    for name, (rows, marker) in groups.items():
        figure.add_scatter(
            x=[r[x] for r in rows], y=[r[y] for r in rows], mode="markers", name=name, marker=marker,
            text=[r["label"] for r in rows], hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
        )  # fmt: skip
    words = {
        "onnx_latency_ms": "latency in ONNX Runtime, ms",
        "method_seconds": "seconds that the method took",
    }
    figure.update_layout(
        template="simple_white", height=420, xaxis_title=words.get(x or "", x),
        yaxis_title=f"{y} on validation data", legend={"orientation": "h"},
    )  # fmt: skip
    return figure
