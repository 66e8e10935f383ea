"""The reliability diagram: accuracy against confidence, bin by bin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netwright.core.metrics import Reliability

COLOURS = ("#b4552d", "#2d6cb4", "#4b8b3b", "#7d4ba0")


def reliability_diagram(curves: Mapping[str, Reliability]) -> Any:
    """A plotly figure: above, one line per named curve and the diagonal of perfect calibration; below, counts.

    Empty bins are left out. Points are at a bin's mean confidence, so that the gap to the diagonal is the one
    that the ECE counts.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.75, 0.25], vertical_spacing=0.06)
    figure.add_trace(
        go.Scatter(x=[0, 1], y=[0, 1], mode="lines", name="perfect", line={"color": "#999", "dash": "dot"}),
        row=1, col=1,
    )  # fmt: skip
    for i, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        filled = curve.count > 0
        confidence, accuracy, count = (
            t[filled].tolist() for t in (curve.confidence, curve.accuracy, curve.count)
        )
        figure.add_trace(
            go.Scatter(
                x=confidence, y=accuracy, customdata=count, mode="lines+markers", legendgroup=name,
                name=f"{name} (ECE {100 * curve.ece:.1f} %)", line={"color": colour},
                hovertemplate="says %{x:.1%}, is right %{y:.1%} (%{customdata} examples)",
            ),
            row=1, col=1,
        )  # fmt: skip
        middle = ((curve.edges[1:] + curve.edges[:-1]) / 2).tolist()
        width = (curve.edges[1:] - curve.edges[:-1]).tolist()
        figure.add_trace(
            go.Bar(
                x=middle, y=curve.count.tolist(), width=width, legendgroup=name, showlegend=False,
                marker={"color": colour, "opacity": 0.45}, hovertemplate="%{y} examples", name=name,
            ),
            row=2, col=1,
        )  # fmt: skip
    figure.update_xaxes(title_text="confidence", range=[0, 1], row=2, col=1)
    figure.update_yaxes(title_text="accuracy", range=[0, 1], row=1, col=1)
    figure.update_yaxes(title_text="examples", row=2, col=1)
    figure.update_layout(barmode="overlay", template="plotly_white", height=480, margin={"t": 30})
    return figure
