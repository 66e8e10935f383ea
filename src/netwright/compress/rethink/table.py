"""What the referee found: means and deviations over seeds, a sentence, a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from netwright.core.finding import Found

Row = dict[str, Any]
CLOSE = 0.003  # the paper's arms differ by less than this between runs
STRUCTURED = ("filters", "slimming")


def found(rows: list[Row]) -> Found:
    """rows: one per arm, case and seed. Figures: '<arm>, <case>' (the large network: its arm alone)."""
    shown = summed(rows)
    figures = {_name(row): row["mean"] for row in shown}
    cases = list(dict.fromkeys(row["case"] for row in shown if row["arm"] == "fine-tuned"))
    gain = {c: figures[f"scratch-B, {c}"] - figures[f"fine-tuned, {c}"] for c in cases}
    figures |= {f"scratch-B less fine-tuned, {c}": g for c, g in gain.items()}
    structured = {c: g for c, g in gain.items() if c.split()[0] in STRUCTURED}
    as_good = sum(g >= -CLOSE for g in structured.values())
    sentence = (
        f"The large network has {_percent(figures['large'])}. From new weights, with as many multiply-accumulates as "
        f"it had, the smaller ones are as good as fine-tuned in {as_good} of {len(structured)} structured cases; "
        + "; ".join(f"{c}: {100 * g:+.2f} points" for c, g in gain.items())
    )
    return Found("rethink", sentence, figures, shown, lambda: draw(shown), {"rows": rows})


def summed(rows: list[Row]) -> list[Row]:
    """A row per arm and case: mean and deviation (n - 1) of the metric over seeds, and what the arm cost."""
    table = []
    for arm, case in dict.fromkeys((row["arm"], row["case"]) for row in rows):
        mine = [row for row in rows if (row["arm"], row["case"]) == (arm, case)]
        values = np.array([row["test"] for row in mine])
        average = lambda key, mine=mine: float(np.mean([row[key] for row in mine]))
        table.append(
            {
                "case": case, "arm": arm, "mean": float(values.mean()),
                "deviation": float(values.std(ddof=1)) if len(values) > 1 else 0.0, "seeds": len(mine),
                "epochs": average("epochs"), "macs": average("macs"), "spent": average("spent"),
                "seconds": average("seconds"),
            }
        )  # fmt: skip
    return table


def draw(shown: list[Row]) -> Any:
    """The arms side by side in each case, with deviations; a line where the large network is."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for arm in dict.fromkeys(row["arm"] for row in shown if row["case"]):
        mine = [row for row in shown if row["arm"] == arm]
        figure.add_trace(
            go.Scatter(
                name=arm, x=[row["case"] for row in mine], y=[row["mean"] for row in mine], mode="markers",
                error_y={"type": "data", "array": [row["deviation"] for row in mine]},
                customdata=[[row["spent"], row["seconds"]] for row in mine],
                hovertemplate="%{y:.4f}<br>%{customdata[0]:.2f} trainings of the large one, %{customdata[1]:.0f} s",
            )
        )  # fmt: skip
    figure.add_hline(y=next(row["mean"] for row in shown if row["arm"] == "large"), line_dash="dot")
    figure.update_layout(template="plotly_white", scattermode="group", yaxis={"title": "on test data"})
    return figure


def _name(row: Row) -> str:
    return f"{row['arm']}, {row['case']}" if row["case"] else row["arm"]


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
