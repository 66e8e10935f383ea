"""Latency is measured as the network will be used, and every figure of it says so."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import netwright as nw
from netwright.app.candidates import finish, timing
from netwright.app.clock import Clock
from netwright.app.compare import compare
from netwright.app.deployment import Deployment
from netwright.app.report import table, verdict
from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.measure.latency import latency
from netwright.core.measure.paired import Change
from netwright.core.network import device_named

ROOT = Path(__file__).parents[2]


@pytest.fixture
def task():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    return nw.Task.from_arrays(x, (x[:, 0] > 0).long(), name="halves")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).eval()


@pytest.fixture
def timings(monkeypatch):
    """What was asked of the clock: (backend, batch, threads, rows of the example)."""
    seen = []

    def note(candidates, example, backend, *, batch, threads, **more):
        seen.append((backend, batch, threads, len(example[0])))
        return latency(candidates, example, backend, batch=batch, threads=threads, **more)

    monkeypatch.setattr(timing, "latency", note)
    monkeypatch.setattr(finish, "latency", note)
    return seen


def test_in_words():
    assert str(Deployment()) == "one thread, batch 1"
    assert str(Deployment(32, 2)) == "2 threads, batch 32"
    assert Deployment().usual
    assert not Deployment(threads=2).usual
    for bad in ({"batch": 0}, {"threads": -1}):
        with pytest.raises(BadInput, match=next(iter(bad))):
            Deployment(**bad)


def test_candidates_are_timed_so_in_both_runtimes_and_the_table_says_so(network, task, timings, tmp_path):
    found = compare(
        "compress", network, task, Budget(epochs=1), methods=["dynamic-int8"], as_it_is=True, batch=8,
        path=tmp_path, quiet=True,
    )  # fmt: skip
    assert timings == [("onnx", 8, 1, 8), ("torch", 8, 1, 8)]
    assert any("one thread, batch 8" in line for line in table.footnotes(found))
    assert json.loads((tmp_path / "compare.json").read_text())["deployment"] == {"batch": 8, "threads": 1}
    assert "one thread, batch 8" in (tmp_path / "report.html").read_text()
    with pytest.raises(BadInput, match="another deployment"):
        compare(
            "compress", network, task, Budget(epochs=1), methods=["dynamic-int8"], as_it_is=True, path=tmp_path
        )  # fmt: skip


def test_the_last_figures_are_taken_so(network, task, timings, tmp_path):
    path = tmp_path / "net.onnx"
    nw.export(network, task.example(2), path)
    files, networks = {"before": path, "after": path}, {"before": network, "after": network}
    outputs = {name: (torch.randn(10, 2), torch.zeros(10).long()) for name in files}
    finish.figures(networks, files, outputs, task, Clock(5.0), Deployment(3, 2))
    assert timings == [("onnx", 3, 2, 3), ("torch", 3, 2, 3)]


def test_the_verdict_names_what_is_not_as_usual():
    figures = {"accuracy": 0.9, "onnx_ratio": 0.5, "torch_ratio": 0.6, "bytes": 100}
    moved = {"accuracy": Change(0.0, -0.01, 0.01, 100)}
    say = lambda use: verdict.judge(figures, figures, nw.Target(faster=2), "accuracy", moved, deployment=use)[
        1
    ]
    assert "in PyTorch (2 threads, batch 32);" in say(Deployment(32, 2))
    assert "batch" not in say(Deployment())


def test_more_threads_than_there_are_and_goals_without_networks_are_refused(network, task):
    with pytest.raises(BadInput, match="threads 1000: this machine has"):
        compare("compress", network, task, threads=1000)
    with pytest.raises(BadInput, match="not for verify"):
        compare("verify", network, task, batch=2)


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(name, network, task):
    with pytest.raises(BadInput, match="leave it out") as refused:
        device_named(name)
    assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match=name):
        compare("compress", network, task, device=name)
    assert device_named("cpu").type == "cpu"


def test_improve_and_the_script_that_measures_again(tmp_path, capsys):
    task = nw.task("digits")
    network = nw.model("cnn", task.input_shape, task.outputs, widths=(8, 16)).eval()
    nw.Fit(epochs=2, lr=5e-3)(network, task)
    found = nw.improve(
        network,
        "digits",
        smaller=1.2,
        max_drop=1.0,
        budget=300,
        methods=["static-int8"],
        out=tmp_path,
        batch=16,
    )
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["deployment"] == {"batch": 16, "threads": 1}
    assert document["device"] == "cpu"
    assert "latency with one thread, batch 16" in capsys.readouterr().out
    assert "(one thread, batch 16)" in found.sentence
    report = (tmp_path / "report.html").read_text()
    assert "ONNX Runtime, one thread, batch 16, timed in turn" in report
    script = importlib.util.spec_from_file_location("remeasure", ROOT / "benchmarks" / "remeasure.py")
    remeasure = importlib.util.module_from_spec(script)
    script.loader.exec_module(remeasure)
    remeasure.main(tmp_path)
    said = capsys.readouterr().out
    assert "one thread, batch 16" in said
    assert f"result.json: {1 / found.after['onnx_ratio']:.2f}x faster" in said
