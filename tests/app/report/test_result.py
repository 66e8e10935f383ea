"""How a result shows itself, on made-up figures."""

from pathlib import Path

import torch
from torch import nn

import netwright as nw
from netwright.app.report.result import Result, table
from netwright.core.measure.paired import Change

FIGURES = {"accuracy": 0.95, "onnx_latency_ms": 1.0, "bytes": 1000, "onnx_ratio": 1.0, "torch_ratio": 1.0}
TRIALS = [
    {"label": "taylor <60 %>", "accuracy": 0.95, "bytes": 500.0, "why": "chosen: the only one that meets it"},
    {"label": "int8", "status": "failed", "why": "out of memory"},
]


def result() -> Result:
    task = nw.Task.from_arrays(torch.randn(60, 3), torch.arange(60) % 3)
    after = {**FIGURES, "accuracy": 0.958, "onnx_latency_ms": 0.4, "onnx_ratio": 0.4}
    document = {
        "accuracy_change": Change(0.008, -0.001, 0.017, 2000).to_json(), "warnings": ["rows may have been seen"],
    }  # fmt: skip
    network = nn.Linear(3, 3)
    return Result(network, task, True, "2.5x faster.", "int8", FIGURES, after, Path("out"), TRIALS, document)


def test_a_result_prints_short():
    assert repr(result()) == "Result(met: 2.5x faster. Files: out)"


def test_a_result_shows_itself_in_a_notebook():
    page = result()._repr_html_()
    for words in (
        "<b>Met:</b> 2.5x faster.", "rows may have been seen", "+0.8 points [-0.1, +1.7]", "★ taylor &lt;60 %&gt;",
        "out of memory", "Files: out",
    ):  # fmt: skip
        assert words in page
    assert len(page) < 10_000
    assert "<script" not in page
    assert "http" not in page


def test_a_table_escapes_what_it_shows():
    assert "<b>" not in table(["<b>"], [["<b>"]])
