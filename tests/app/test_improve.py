"""The main job, end to end, on embedded data."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

import netwright as nw
from netwright.core.network import seeded
from netwright.data import task as open_task

FILES = {"model.onnx", "model.pt2", "original.onnx", "report.html", "result.json", "study.db"}


@pytest.fixture(scope="module")
def task():
    return open_task("digits")


@pytest.fixture(scope="module")
def network(task):
    with seeded(0):
        net = nw.model("cnn", task.input_shape, task.outputs, widths=(16, 32))
    nw.Fit(epochs=8, lr=5e-3)(net, task)
    return net


@pytest.fixture(scope="module")
def result(network, task, tmp_path_factory):
    out = tmp_path_factory.mktemp("improved")
    return nw.improve(
        network,
        task,
        smaller=1.5,
        max_drop=0.05,
        budget=20,
        methods=["static-int8", "taylor-pruning"],
        out=out,
    )


def accuracy_of(path, task):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    hits = [
        session.run(None, {"input": x.numpy().astype(np.float32)})[0].argmax(1) == y.numpy()
        for x, y in task.raw().test.batches(64)
    ]
    return np.concatenate(hits).mean()


def test_every_file_is_there_and_result_json_says_what_was_measured(result, task):
    assert {p.name for p in result.folder.iterdir()} >= FILES
    document = json.loads((result.folder / "result.json").read_text())
    for when in ("before", "after"):
        for figure in (
            "accuracy", "onnx_latency_ms", "torch_latency_ms", "bytes", "parameters", "macs", "ece", "nll",
        ):  # fmt: skip
            assert document[when][figure] > 0, (when, figure)
    assert {"method", "met", "trials", "seed", "versions"} <= set(document)
    assert document["met"] is True
    assert document["before"]["bytes"] == (result.folder / "original.onnx").stat().st_size
    assert document["after"]["bytes"] == (result.folder / "model.onnx").stat().st_size


def test_the_written_files_do_what_the_figures_say(result, task):
    for name, figures in (("original.onnx", result.before), ("model.onnx", result.after)):
        assert accuracy_of(result.folder / name, task) == pytest.approx(figures["accuracy"], abs=1e-9)
    assert result.before["bytes"] >= 1.5 * result.after["bytes"]
    x = task.raw().example(4)[0]
    program = torch.export.load(result.folder / "model.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(x), result.network(task.example(4)[0]), atol=1e-3, rtol=1e-2)


def test_the_given_network_is_untouched_and_calibration_helps_validation(result, network, task):
    from netwright.core.metrics import evaluate

    assert evaluate(network, task, "test")["accuracy"] == pytest.approx(result.before["accuracy"])


def test_the_report_is_one_file_that_tells_the_story(result):
    text = (result.folder / "report.html").read_text()
    for words in (
        "Before and after",
        "Every candidate",
        "How sure it is",
        "Where it looks",
        "How to use the result",
    ):
        assert words in text
    assert 'src="http' not in text
    assert 'src="data:image/png' in text
    for trial in result.trials:
        assert trial["label"] in text
        assert trial["why"]


def test_the_same_call_goes_on_from_a_finished_study(result, network, task):
    start = time.monotonic()
    again = nw.improve(
        network, task, smaller=1.5, max_drop=0.05, budget=20, methods=["static-int8", "taylor-pruning"],
        out=result.folder,
    )  # fmt: skip
    took, now = ({t["key"]: t["seconds"] for t in r.trials} for r in (result, again))
    assert took.items() <= now.items(), "nothing ran again (what found no time before may have run now)"
    assert again.method == result.method or time.monotonic() - start < 60


def test_another_question_in_the_same_folder_is_refused(result, network, task):
    before = {
        p.name: p.read_bytes() for p in result.folder.iterdir() if p.suffix in (".onnx", ".json", ".html")
    }
    with pytest.raises(nw.NetwrightError, match="out"):
        nw.improve(network, task, smaller=3, budget=20, methods=["static-int8"], out=result.folder)
    other = nw.model("mlp", task.input_shape, task.outputs)
    with pytest.raises(nw.NetwrightError, match="out"):
        nw.improve(other, task, smaller=1.5, max_drop=0.05, budget=20, out=result.folder, as_it_is=True)
    assert all((result.folder / name).read_bytes() == content for name, content in before.items())


def test_a_late_failure_leaves_no_new_file_beside_an_older_result(result, network, task, monkeypatch):
    held = lambda: {
        p.name: p.read_bytes() for p in result.folder.iterdir() if p.suffix in (".onnx", ".pt2", ".json")
    }
    before = held()
    monkeypatch.setattr("netwright.app.report.report.render", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        nw.improve(
            network, task, smaller=1.5, max_drop=0.05, budget=10, methods=["static-int8", "taylor-pruning"],
            out=result.folder,
        )  # fmt: skip
    assert held() == before
    assert not list(result.folder.glob(".new-*"))


def test_what_cannot_be_met_is_written_all_the_same(network, task, tmp_path):
    result = nw.improve(network, task, smaller=50, budget=20, methods=["static-int8"], out=tmp_path)
    assert not result.met
    assert {p.name for p in tmp_path.iterdir()} >= FILES
    assert "only" in result.trials[0]["why"]


def test_before_and_after_are_shown_on_the_same_data(result, network, task, capsys):
    again = nw.improve(
        network, task, smaller=1.5, max_drop=0.05, budget=20, methods=["static-int8", "taylor-pruning"],
        out=result.folder, quiet=False,
    )  # fmt: skip
    said = capsys.readouterr().out
    shown = said[said.index(f"on {len(task.test)} test examples") :]
    for when, figures in (("before", again.before), ("after", again.after)):
        assert re.search(rf"{when} +{100 * figures['accuracy']:.1f} % accuracy", shown), said


@pytest.mark.parametrize("bad", [{"faster": 0.5}, {"smaller": float("inf")}, {"max_drop": 5}])
def test_a_target_that_cannot_be_asked_for_is_refused(network, task, tmp_path, bad):
    with pytest.raises(nw.NetwrightError, match=r"cannot be asked for|no fraction"):
        nw.improve(network, task, **bad, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_exported_file_is_improved_and_its_own_normalisation_is_noticed(result, task, tmp_path):
    again = nw.improve(
        str(result.folder / "original.onnx"),
        task,
        smaller=2,
        budget=20,
        methods=["static-int8"],
        out=tmp_path,
    )
    assert again.before["accuracy"] == pytest.approx(result.before["accuracy"], abs=1e-6)
    assert "normalises its inputs itself" in json.loads((tmp_path / "result.json").read_text())["note"]
    assert accuracy_of(tmp_path / "model.onnx", task) == pytest.approx(again.after["accuracy"], abs=0.006)


def test_ctrl_c_leaves_a_study_that_the_same_command_continues(tmp_path):
    words = [
        "improve",
        "--methods",
        "static-int8,dynamic-int8",
        "--smaller",
        "2",
        "--budget",
        "30s",
        "--out",
        tmp_path,
    ]
    command = [sys.executable, "-m", "netwright.app.cli", *map(str, words)]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "study.db").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 130
    assert "the same command goes on from here" in said
    second = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert second.returncode in (0, 1), second.stderr  # met or not
    assert {p.name for p in Path(tmp_path).iterdir()} >= FILES
