"""A comparison's table, notes and plot, on made-up figures."""

import json

import pytest
import torch
from rich.console import Console

import netwright as nw
from netwright.app.candidates.run import original_trial
from netwright.app.compare import Comparison
from netwright.app.report.comparison import write
from netwright.app.report.table import footnotes, notes, pareto_plot, series
from netwright.core.study.study import Outcome, Study, Trial

FIGURES = {
    "original": {"accuracy": 0.9, "nll": 0.26, "onnx_latency_ms": 1.0, "bytes": 1000.0},
    "level": {"accuracy": 0.9, "nll": 0.3, "onnx_latency_ms": 0.98, "bytes": 900.0, "faster": 1.02,
              "onnx_interval_low": 0.9, "onnx_interval_high": 1.1},
    "fast": {"accuracy": 0.899, "nll": 54.0, "blown_up": 1.0, "onnx_latency_ms": 0.5, "bytes": 400.0, "faster": 2.0,
             "onnx_ratio_low": 0.4, "onnx_ratio_high": 1.2, "onnx_interval_low": 0.45, "onnx_interval_high": 0.55},
}  # fmt: skip


def outcome(trial, network, task):
    return Outcome(FIGURES[trial.slug])


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    task = nw.Task.from_arrays(torch.randn(60, 3), torch.arange(60) % 3)
    study = Study(tmp_path_factory.mktemp("study") / "study.db", {})
    study.run([original_trial(), Trial("level"), Trial("fast")], outcome, None, task)
    return Comparison("compress", study, task, nw.Budget())


def shown(comparison) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison)
    return console.export_text()


def test_level_is_explained_where_it_stands(comparison):
    for said in (shown(comparison), comparison._repr_html_()):
        assert "1.02x (level)" in said
        assert "(level): neither faster nor slower than the original" in said
        assert "2.00x [1.82, 2.22]" in said, "single rounds may be slower: the median is not"


def test_a_blow_up_is_marked_and_not_starred(comparison):
    assert comparison.best.row["slug"] == "level"
    assert notes(comparison) == [
        "fast: its probabilities have blown up: negative log likelihood 54, of the original 0.26"
    ]
    assert "its probabilities have blown up" in shown(comparison)
    assert "★ level: chosen" in footnotes(comparison)[0]


def test_the_notebooks_piece_is_small_and_complete(comparison):
    page = comparison._repr_html_()
    assert len(page) < 20_000
    assert "<script" not in page
    assert "<svg" in page
    assert [s.name for s in series(comparison)] == ["Pareto front", "candidates", "best", "original"]
    assert len(pareto_plot(comparison).data) == 4


def test_a_tie_is_said(tmp_path):
    task = nw.Task.from_arrays(torch.randn(60, 3), torch.arange(60) % 3)
    study = Study(tmp_path / "study.db", {})
    study.run(
        [original_trial(), Trial("a"), Trial("b")],
        lambda trial, network, task: Outcome({"accuracy": 0.9}),
        None,
        task,
    )
    tied = Comparison("train", study, task, nw.Budget())
    assert tied.best.row["slug"] == "a"
    assert footnotes(tied) == ["★ a: the highest accuracy; a tie with b, of which the first is starred"]


def test_a_folder_gets_report_and_json(comparison, tmp_path):
    write(comparison, tmp_path)
    page = (tmp_path / "report.html").read_text()
    for words in (
        "compress: 2 methods on arrays", "<strong>★ level:</strong> the only one that meets it with sound",
        "(level)",
        "Fast: its probabilities have blown up.", "Side by side", "What costs what", "How this was made", "numpy",
    ):  # fmt: skip
        assert words in page, words
    assert 'src="http' not in page
    assert "How to get a network out" not in page, "these trials left no network"
    document = json.loads((tmp_path / "compare.json").read_text())
    assert document["best"] == comparison.best.row["key"]
    assert document["why_best"].startswith("chosen: ")
    assert {"machine", "versions", "date", "rows", "original", "footnotes"} <= document.keys()
