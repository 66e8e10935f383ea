import html
import json
import re
import sys

import cloudpickle
import numpy as np
import onnxruntime
import pytest
import torch
from rich.console import Console
from torch import nn

import netwright as nw
from netwright.app.candidates.run import halves, original_trial, run_transform_trial, run_trial, trials_for
from netwright.app.candidates.timing import time_candidates
from netwright.app.compare import compare, open_runner, part_of
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, UnknownName
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.split import Normalise
from netwright.core.study.study import Outcome, Study, Trial
from netwright.core.task import Task

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8 * 64, 3)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


@pytest.fixture(scope="module")
def task():
    """Bars: upright, lying, or a cross, in noise; pixels from 0 to 255."""
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    x = rng.uniform(0, 120, (600, 1, 8, 8))
    for i, kind in enumerate(y):
        at = rng.integers(1, 7)
        x[i, 0, :, at] += 90 * (kind != 1)
        x[i, 0, at, :] += 90 * (kind != 0)
    return Task.from_arrays(
        x.clip(0, 255).astype(np.uint8), y, normalise=Normalise([0.3], [0.2], 1 / 255), name="bars"
    )


@pytest.fixture(scope="module")
def network(task):
    network = Small()
    Fit(epochs=3, lr=3e-3, batch_size=64)(network, task)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compress")


@pytest.fixture(scope="module")
def compressed(network, task, folder):
    return nw.compare(
        "compress", network, task, Budget(seconds=120), methods=["static-int8", "dynamic-int8"], path=folder
    )


def text_of(comparison) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison)
    return console.export_text()


def test_rows_hold_everything_that_decides(compressed, network, task):
    assert [r["slug"] for r in compressed.rows] == ["static-int8", "dynamic-int8"]
    for row in (compressed.original, *compressed.rows):
        assert (row["status"], row["reason"]) == ("done", "")
        assert {"accuracy", "nll", "ece", "bytes", "parameters", "macs", "method_seconds"} <= row.keys()
        assert row["onnx_latency_ms"] > 0
        assert row["torch_latency_ms"] > 0
        assert row["onnx_ratio_low"] <= row["onnx_ratio"] <= row["onnx_ratio_high"]
        assert row["onnx_interval_low"] <= row["onnx_ratio"] <= row["onnx_interval_high"]
        assert row["onnx_ratio_low"] <= row["onnx_interval_high"]
        assert row["faster"] == pytest.approx(1 / row["onnx_ratio"])
        assert row["onnx_latency_ms"] == pytest.approx(
            row["onnx_ratio"] * compressed.original["onnx_latency_ms"]
        )
        candidate = compressed.study.network(row["key"])
        assert evaluate(candidate, task)["nll"] == pytest.approx(row["nll"], rel=1e-4)
    assert compressed.original["onnx_ratio"] == 1
    assert compressed.original["parameters"] == sum(p.numel() for p in network.parameters())
    assert compressed.rows[0]["bytes"] < compressed.original["bytes"]


def test_the_same_call_again_does_nothing_again(compressed, network, task, folder):
    heard = []
    again = compare(
        "compress", network, task, Budget(seconds=120), methods=["static-int8", "dynamic-int8"], path=folder,
        progress=lambda *news: heard.append(news),
    )  # fmt: skip
    assert again.rows == compressed.rows
    assert heard == []


def test_a_folder_gets_a_report_whose_code_brings_the_network_back(compressed, task, folder, monkeypatch):
    page = html.unescape((folder / "report.html").read_text())
    document = json.loads((folder / "compare.json").read_text())
    assert document["best"] == compressed.best.row["key"]
    load, export = re.findall(r"<pre>.*?<code>(.*?)</code></pre>", page, re.S)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(load, names)
    x = task.example(4)[0]
    assert torch.equal(names["network"](x), compressed.best.network(x))
    exec(export.split("\n", 1)[1], names | {"task": task})
    assert (folder / "model.onnx").stat().st_size > 500


def test_another_network_is_refused(compressed, task, folder):
    with pytest.raises(BadInput, match="was made with another network"):
        compare(
            "compress",
            Small(),
            task,
            Budget(seconds=120),
            methods=["static-int8"],
            path=folder,
            as_it_is=True,
        )


def test_the_best_is_exported_with_its_normalisation(compressed, task, tmp_path):
    best = compressed.best
    assert best.label in {r["label"] for r in compressed.rows}
    assert best.row["accuracy"] >= compressed.original["accuracy"] - 0.01
    best.export(tmp_path / "model.onnx")
    raw = task.val.inputs[0][:16].float()  # pixels as they are
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: raw.numpy()})
    expected = best.network(task.normalise(raw)).detach().numpy()
    assert np.abs(got - expected).max() <= 0.05 * np.abs(expected).max()
    assert np.abs(session.run(None, {session.get_inputs()[0].name: raw.numpy() / 255})[0] - got).max() > 0.1


def test_shown_in_terminal_notebook_and_json(compressed):
    shown, page = text_of(compressed), compressed._repr_html_()
    for row in compressed.rows:
        assert row["label"] in shown
        assert row["label"] in page
    assert "★" in shown
    assert "original" in shown
    document = json.loads(json.dumps(compressed.to_json()))
    assert document["best"] in {r["key"] for r in document["rows"]}
    assert len(compressed.plot().data) == 4
    assert "2 served" in repr(compressed)


def test_what_does_not_serve_is_said_below_the_table(task, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.ReLU())
    task = Task.from_arrays(np.random.rand(60, 3), np.arange(60) % 3)
    comparison = compare("compress", network, task, methods=["static-int8"])
    (row,) = comparison.rows
    assert row["status"] == "not applicable"
    assert comparison.best is None
    assert comparison.pareto == []
    assert f"{row['label']}: not applicable: {row['reason']}" in text_of(comparison)
    assert row["reason"] in comparison._repr_html_()


def test_a_network_that_does_not_fit_is_refused_before_anything_is_tried(task):
    with pytest.raises(BadInput, match="the network cannot run on task 'bars'"):
        compare("compress", nn.Linear(5, 3), task, methods=["static-int8"])


def test_calibrators_are_judged_on_data_that_they_did_not_see(network, task, monkeypatch):
    learn, judge = halves(task)
    rows = [tuple(x.flatten().tolist()) for x in (*learn.val.inputs[0], *judge.val.inputs[0])]
    assert sorted(rows) == sorted(tuple(x.flatten().tolist()) for x in task.val.inputs[0])
    comparison = compare("calibrate", network, task, methods=["temperature-scaling", "isotonic-calibration"])
    assert comparison.original["nll"] == pytest.approx(evaluate(network, judge)["nll"], rel=1e-4)
    by_hand = nw.method("temperature-scaling").build()(network, learn, Budget())
    assert comparison.rows[0]["nll"] == pytest.approx(evaluate(by_hand, judge)["nll"], rel=1e-3)
    assert comparison.best.row["nll"] == min(r["nll"] for r in comparison.rows)
    assert "nll" in text_of(comparison)
    better = comparison.original | {"nll": comparison.best.row["nll"] - 0.01}
    monkeypatch.setattr(type(comparison), "original", better)
    assert comparison.best is None, "no calibration is better than none"


def test_explainers_are_compared_by_faithfulness(network, task):
    comparison = compare("explain", network, task, methods=["grad-cam", "grad-cam-plus-plus"])
    for row in comparison.rows:
        assert 0 <= row["deletion"] <= 1
        assert 0 <= row["weights_similarity"] <= 1
        assert row["seconds_per_example"] > 0
    assert comparison.original is None
    assert comparison.best is None
    assert "ignores weights?" in text_of(comparison)


def test_verifiers_are_compared_by_what_they_prove(network, task):
    comparison = compare("verify", network, task, methods=["interval-bounds", "crown", "pgd"])
    interval, crown, pgd = comparison.rows
    assert interval["certified"] <= crown["certified"] <= crown["attacked"] <= crown["clean"]
    assert crown["radius"] == 2 / 255
    assert "certified" not in pgd, "an attack proves nothing"
    assert pgd["attacked"] <= pgd["clean"]
    assert "certified" in text_of(comparison)


def test_verifiers_are_compared_within_the_radius_that_was_asked_for(network, task):
    near, far = (
        compare("verify", network, task, methods=["interval-bounds"], radius=radius).rows[0]
        for radius in (0.0, 0.2)
    )
    assert (near["radius"], far["radius"]) == (0.0, 0.2)
    assert near["certified"] == near["clean"] > far["certified"]
    with pytest.raises(BadInput, match="a radius is for the goal verify"):
        compare("compress", network, task, radius=0.1)
    with pytest.raises(BadInput, match="is no radius"):
        compare("verify", network, task, radius=-1.0)


def test_trials_carry_settings_seed_and_names():
    trials = trials_for(
        "compress", ["static-int8", ("static-int8", {"examples": 64})], Budget(epochs=2), seed=3
    )
    assert [t.seed for t in trials] == [3, 3]
    assert trials[1].settings == {"examples": 64}
    assert "examples 64" in trials[1].label
    assert trials[0].key != trials[1].key


def test_bad_use_is_one_line(network, task):
    with pytest.raises(UnknownName, match=r"no method named 'static-int9'\. Did you mean 'static-int8'"):
        trials_for("compress", ["static-int9"])
    with pytest.raises(UnknownName, match="no goal named 'comprss'"):
        compare("comprss", network, task)
    with pytest.raises(BadInput, match="'static-int8' is a method of the goal compress, not of calibrate"):
        trials_for("calibrate", ["static-int8"])
    (trial,) = trials_for("compress", [("static-int8", {"bits": 3})])
    with pytest.raises(BadInput, match="its settings are examples"):
        run_transform_trial(trial, network, task)
    with pytest.raises(BadInput, match="no runner named 'threads'"):
        open_runner("threads")


def test_the_time_of_the_comparison_is_divided_in_equal_parts_among_those_that_use_it():
    trials = trials_for("compress", ["static-int8", "taylor-pruning", "magnitude-pruning"])
    each = part_of(Budget(seconds=100, epochs=3), trials, "compress", 1)
    assert 2 * each.seconds <= 100
    assert each.seconds > 30, "static int8 does not train and needs no part"
    assert each.epochs == 3
    assert part_of(Budget(), trials, "compress", 1).seconds is None


def widened(trial, network, task):
    """As `run_trial`, but the candidate is a network that does more work."""
    if trial.slug == "original":
        return run_trial(trial, network, task)
    from netwright.app.candidates.run import ONNX, onnx_file

    wide = nn.Sequential(
        nn.Conv2d(1, 512, 3), nn.Conv2d(512, 512, 3), nn.Conv2d(512, 8, 3), nn.Flatten(), nn.Linear(32, 3)
    )
    return Outcome({}, wide, {ONNX: onnx_file(wide, task)[0]})


def test_a_budget_that_is_over_still_tries_what_is_done_in_moments(network, task):
    found = nw.compare(
        "compress", network, task, Budget(seconds=0.1), methods=["taylor-pruning", "dynamic-int8"]
    )
    assert [row["slug"] for row in found.study.rows if row["status"] == "done"] == [
        "original",
        "dynamic-int8",
    ]
    assert len(found.late) == 2  # the pruned one, and the control


def test_timing_compares_with_the_original_and_keeps_what_was_measured(network, task, tmp_path):
    study = Study(tmp_path / "study.db", {})
    trials = [original_trial(), Trial("wide")]
    study.run(trials, widened, network, task)
    time_candidates(study, task, rounds=10)
    original, wide = study.rows
    assert wide["onnx_ratio"] > 2
    assert wide["torch_ratio"] > 1
    study.run([*trials, Trial("wide", {"again": 1})], widened, network, task)
    time_candidates(study, task, rounds=10)
    assert study.rows[:2] == [original, wide]
    assert study.rows[2]["onnx_latency_ms"] > 2 * original["onnx_latency_ms"]


def test_an_attack_alone_shows_no_proof(network, task, capsys):
    from netwright.app.clock import Clock
    from netwright.app.feeding.opening import Subject
    from netwright.app.one import build, verify
    from netwright.app.screen import View

    method, subject = nw.method("pgd"), Subject("small", network, task)
    document = verify(build(method, {}, 0), method, subject, Clock(None), None, View(), 2 / 255)
    said = capsys.readouterr().out
    assert document["certified"] is None
    assert "right under attack" in said
    assert "proved" not in said
    assert "an attack proves nothing" in said
