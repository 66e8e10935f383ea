"""The report: one HTML file that opens offline, from the evidence that `improve` gathered.

Everything in it is data already measured; nothing is computed here but percentages.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netwright.app import words
from netwright.app.candidates.beside import change_cell
from netwright.app.candidates.control import CONTROL
from netwright.app.deployment import Deployment
from netwright.app.report import contract
from netwright.core.budget import Target
from netwright.core.files.checkpoint import atomic
from netwright.core.measure.paired import Change
from netwright.core.metrics import Reliability
from netwright.core.plural import number_of
from netwright.core.signature import Signature


@dataclass
class Evidence:
    """What a report shows. `before` and `after` hold the figures of result.json; trials are the study's rows."""

    subject: str
    task_line: str
    target: Target
    met: bool
    sentence: str
    primary: str
    before: dict[str, Any]
    after: dict[str, Any]
    changes: dict[str, Change]
    trials: list[dict[str, Any]]
    chosen: str  # key of a trial
    chosen_text: str
    test_count: int
    validation_count: int
    signature: Signature
    versions: dict[str, str]
    machine: dict[str, Any]
    date: str
    made: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    fresh: bool = True  # the given network cannot have learned from the test examples
    layers: list[dict[str, str]] = field(default_factory=list)
    untried: list[dict[str, str]] = field(default_factory=list)
    reliability: tuple[Reliability, Reliability] | None = None
    maps: list[dict[str, str]] = field(default_factory=list)
    maps_line: str = ""
    deployment: Deployment = field(default_factory=Deployment)


def asked(target: Target, metric: str = "accuracy") -> str:
    """What was asked, as a person would say it."""
    parts = []
    if target.faster is not None:
        parts.append(f"{target.faster:g} times faster")
    if target.smaller is not None:
        parts.append(f"{target.smaller:g} times smaller")
    if target.max_drop is not None:
        parts.append(words.asked_drop(metric, target.max_drop))
    return ", ".join(parts)


def size_text(count: float) -> str:
    """Bytes for people, in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


_ROWS = [
    ("accuracy", "accuracy (test)", percent, "points"),
    ("r2", "R² (test)", lambda v: words.figure("r2", v), "difference"),
    ("mae", "mean absolute error, MAE (test)", lambda v: words.figure("mae", v), "difference"),
    ("rmse", "root mean squared error, RMSE (test)", lambda v: words.figure("rmse", v), "difference"),
    ("onnx_latency_ms", "latency, ONNX Runtime", lambda v: f"{v:.3f} ms", "factor"),
    ("torch_latency_ms", "latency, PyTorch", lambda v: f"{v:.3f} ms", "factor"),
    ("bytes", "size of the ONNX file", size_text, "factor"),
    ("parameters", "parameters", lambda v: f"{v:,}", "factor"),
    ("macs", "multiply-accumulates", lambda v: f"{v:,}", "factor"),
    ("ece", "calibration error (ECE)", lambda v: f"{100 * v:.2f} %", "points"),
    ("nll", "negative log likelihood", lambda v: f"{v:.4f}", "difference"),
    ("attacked_accuracy", "accuracy under attack (PGD)", percent, "points"),
]


def comparison(
    before: dict[str, Any], after: dict[str, Any], changes: Mapping[str, Change]
) -> list[dict[str, str]]:
    """The table of before and after, with the change in the unit that suits the figure, and its 95 % interval where one
    is known (of a latency: of the median of its ratios, round by round)."""
    rows = []
    for key, name, text, change in _ROWS:
        a, b = before.get(key), after.get(key)
        if a is None or b is None:
            continue
        if key in changes:
            moved = words.moved(key, changes[key].value).split(" of ")[0]
            said = f"{moved} {words.interval(key, changes[key])}"
        elif key.endswith("_latency_ms"):
            said = _latency_change(after, key.removesuffix("_latency_ms"))
        elif change == "factor":
            ratio = a / b if b else float("inf")
            said = f"{ratio:.2f}x less" if ratio >= 1 else f"{1 / ratio:.2f}x more"
            said = "the same" if abs(ratio - 1) < 0.005 else said
        elif change == "points":
            said = f"{100 * (b - a):+.2f} points"
        else:
            said = f"{b - a:+.4f}"
        rows.append({"name": name, "before": text(a), "after": text(b), "change": said})
    return rows


def _latency_change(after: dict[str, Any], runtime: str) -> str:
    """'2.13x faster [1.90, 2.31]': the median of the ratios, round by round, which is what a verdict rests on."""
    ratio, interval = after[f"{runtime}_ratio"], after.get(f"{runtime}_interval")
    faster = ratio <= 1
    said = f"{words.factor(1 / ratio if faster else ratio)} {'faster' if faster else 'slower'}"
    if interval is None:
        return said
    low, high = (1 / interval[1], 1 / interval[0]) if faster else interval
    return f"{said} [{low:.2f}, {high:.2f}]" + (
        f" {words.LEVEL}" if words.direction(ratio, interval) == "level" else ""
    )


def cards(evidence: Evidence) -> list[dict[str, str]]:
    """The few figures that a reader wants first: name, value, and what it was and is."""
    before, after, primary, target = evidence.before, evidence.after, evidence.primary, evidence.target
    found = []
    for runtime, name in (("onnx", "speed in ONNX Runtime"), ("torch", "speed in PyTorch")):
        ratio = after.get(f"{runtime}_ratio")
        if ratio is None:
            continue
        asked_ = target.faster if runtime == "onnx" else None
        value = f"{words.factor(1 / ratio, asked_)} faster" if ratio <= 1 else f"{words.factor(ratio)} slower"
        key = f"{runtime}_latency_ms"
        level = words.direction(ratio, after.get(f"{runtime}_interval")) == "level"
        more = f"{before[key]:.3f} → {after[key]:.3f} ms" + (f" {words.LEVEL}" if level else "")
        found.append({"name": name, "value": value, "more": more})
    found.append({
        "name": "size of the file", "value": words.size_change(before["bytes"], after["bytes"], target.smaller),
        "more": f"{size_text(before['bytes'])} → {size_text(after['bytes'])}",
    })  # fmt: skip
    change = evidence.changes[primary]
    found.append({
        "name": words.NAMES[primary], "value": words.moved(primary, change.value, target.max_drop).split(" of ")[0],
        "more": f"{words.figure(primary, before[primary]).removesuffix(' %')} → "
        f"{words.figure(primary, after[primary])} {words.interval(primary, change)}",
    })  # fmt: skip
    return found


def pareto_figure(evidence: Evidence) -> Any:
    """Accuracy over latency: every candidate, the original, the front, the chosen one."""
    import plotly.graph_objects as go

    from netwright.core.study.study import pareto

    timed = [r for r in evidence.trials if r.get("onnx_latency_ms") is not None]
    rows = [r for r in timed if r.get("slug") != CONTROL]
    # the trials' latencies are multiples of what the original's was when they were timed
    reference = next((r["onnx_latency_ms"] / r["onnx_ratio"] for r in timed if r.get("onnx_ratio")), None)
    given = evidence.before["onnx_latency_ms"] if reference is None else reference
    figure = go.Figure()
    front = sorted(
        pareto(rows, minimise=["onnx_latency_ms"], maximise=[evidence.primary]),
        key=lambda r: r["onnx_latency_ms"],
    )
    point = lambda rs: ([r["onnx_latency_ms"] for r in rs], [r[evidence.primary] for r in rs])
    x, y = point(front)
    figure.add_scatter(x=x, y=y, mode="lines", line={"dash": "dot", "color": "#9aa7b4"}, name="Pareto front")
    for name, chosen, marker in (
        ("candidates", False, {"size": 11, "color": "#2f6db5"}),
        ("chosen", True, {"size": 18, "symbol": "star", "color": "#1a7f4b"}),
    ):
        part = [r for r in rows if (r["key"] == evidence.chosen) == chosen]
        x, y = point(part)
        texts = [
            f"{r['label']}<br>{', '.join(f'{k}={v}' for k, v in r.get('settings', {}).items())}" for r in part
        ]
        figure.add_scatter(x=x, y=y, mode="markers", name=name, marker=marker, text=texts, hovertemplate=(
            "%{text}<br>%{x:.3f} ms, %{y:.4f}<extra></extra>"))  # fmt: skip
    figure.add_scatter(
        x=[given], y=[evidence.before["validation"]], mode="markers",
        name="original", marker={"size": 13, "symbol": "diamond", "color": "#b3402a"},
    )  # fmt: skip
    x, y = point([r for r in timed if r.get("slug") == CONTROL])
    if x:
        figure.add_scatter(
            x=x, y=y, mode="markers", name="original, trained on",
            marker={"size": 13, "symbol": "diamond-open", "color": "#b3402a"},
        )  # fmt: skip
    if evidence.target.max_drop is not None:
        figure.add_hline(
            y=evidence.before["validation"] - evidence.target.max_drop, line={"dash": "dash", "width": 1},
            annotation_text="asked: not below",
        )  # fmt: skip
    if evidence.target.faster is not None:
        figure.add_vline(
            x=given / evidence.target.faster, line={"dash": "dash", "width": 1},
            annotation_text="asked: not slower",
        )  # fmt: skip
    figure.update_layout(
        template="simple_white", height=460, margin={"l": 60, "r": 20, "t": 30, "b": 50},
        legend={"orientation": "h", "y": -0.2},
        xaxis_title="latency in ONNX Runtime, ms", yaxis_title=f"{words.NAMES[evidence.primary]} on validation data",
    )  # fmt: skip
    return figure


def reliability_figure(before: Reliability, after: Reliability) -> Any:
    """Two reliability diagrams side by side."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = [f"before: ECE {100 * before.ece:.2f} %", f"after: ECE {100 * after.ece:.2f} %"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, shared_yaxes=True)
    for column, r in enumerate((before, after), start=1):
        filled = r.count > 0
        centres = (r.edges[:-1] + r.edges[1:]) / 2
        figure.add_trace(go.Bar(
            x=centres[filled].tolist(), y=r.accuracy[filled].tolist(), width=(1 / len(centres)) * 0.95,
            marker_color="#2f6db5", customdata=r.count[filled].tolist(),
            hovertemplate="confidence %{x:.2f}: right in %{y:.3f} of %{customdata} cases<extra></extra>",
        ), row=1, col=column)  # fmt: skip
        figure.add_trace(
            go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": "#888"}, hoverinfo="skip"),
            row=1, col=column,
        )  # fmt: skip
        figure.update_xaxes(title_text="confidence", range=[0, 1], row=1, col=column)
    figure.update_yaxes(title_text="share that is right", range=[0, 1], row=1, col=1)
    figure.update_layout(
        template="simple_white", height=360, showlegend=False, margin={"l": 60, "r": 20, "t": 50, "b": 50}
    )
    return figure


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def trial_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """The study's rows as text for the table."""
    rows = []
    for r in evidence.trials:
        number = lambda key, form, r=r: "" if r.get(key) is None else form(r[key])
        rows.append({
            "label": r["label"], "note": r.get("note") or "", "status": r["status"], "why": r.get("why", ""),
            "chosen": r["key"] == evidence.chosen, "blown_up": bool(r.get("blown_up")),
            "control": r.get("slug") == CONTROL,
            "metric": words.figure(evidence.primary, r.get(evidence.primary)),
            "change": change_cell(r, evidence.primary),
            "latency": number("onnx_latency_ms", lambda v: f"{v:.3f} ms"),
            "faster": words.faster_cell(r), "size": number("bytes", size_text),
            "seconds": number("seconds", lambda v: f"{v:.0f}"),
        })  # fmt: skip
    return rows


def render(evidence: Evidence) -> str:
    """The report's HTML."""
    from jinja2 import Environment, PackageLoader
    from plotly.io import to_html
    from plotly.offline import get_plotlyjs

    part = lambda figure: to_html(
        figure, full_html=False, include_plotlyjs=False, config={"displaylogo": False}
    )
    view = dict(evidence.__dict__)
    view |= {
        "asked": asked(evidence.target, evidence.primary),
        "table": comparison(evidence.before, evidence.after, evidence.changes),
        "metric": words.NAMES[evidence.primary],
        "cards": cards(evidence),
        "timed": "onnx_interval" in evidence.after,
        "level": any(
            words.direction(1.0, evidence.after.get(f"{runtime}_interval")) == "level"
            for runtime in ("onnx", "torch")
        ),
        "validation_line": number_of(evidence.validation_count, "validation example"),
        "level_line": words.level_line(evidence.trials),
        "tested_line": f"{words.NAMES[evidence.primary][0].upper()}{words.NAMES[evidence.primary][1:]}"
        f"{' and calibration' if 'ece' in evidence.after else ''} on "
        f"{number_of(evidence.test_count, 'test example')} that "
        f"{'nothing else had seen' if evidence.fresh else 'the given network may have seen'}; "
        "both networks measured the same way, in turn.",
        "trials": trial_rows(evidence),
        "contract": contract.rows(evidence.signature),
        "load_onnx": contract.onnx_code(evidence.signature),
        "load_torch": contract.torch_code(evidence.signature),
        "predict": contract.command(evidence.signature),
    }
    environment = Environment(loader=PackageLoader("netwright.app"), autoescape=True)
    from markupsafe import Markup

    return environment.get_template("report.html").render(
        r=view,
        plotly_js=Markup(get_plotlyjs()),
        pareto=Markup(part(pareto_figure(evidence))),
        reliability=Markup(part(reliability_figure(*evidence.reliability))) if evidence.reliability else "",
    )


def write(evidence: Evidence, path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_text(render(evidence), encoding="utf-8")
