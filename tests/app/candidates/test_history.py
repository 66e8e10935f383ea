"""What won before comes first, on networks that are alike; on made-up records and in `improve` itself."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import netwright as nw
from netwright.app.candidates import history, plan
from netwright.app.candidates.history import Circumstances, Run
from netwright.app.deployment import Deployment
from netwright.core import catalogue

ABOUT = Circumstances(
    "classification of image", ("convolution",), 100_000, (2.0, None, 0.01), "one thread, batch 1", ("AVX2",)
)


def run(number, won, tried=("a", "b", "c"), about=ABOUT):
    return Run(f"{number}", "2026-01-02", f"net-{number}", "digits", about, tuple(tried), won)


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({}, True),
        ({"parameters": 399_000}, True),
        ({"parameters": 26_000}, True),
        ({"parameters": 410_000}, False),
        ({"parameters": 24_000}, False),
        ({"task": "regression of table"}, False),
        ({"layers": ("matrix product",)}, False),
        ({"target": (2.9, None, 0.01)}, True),
        ({"target": (3.1, None, 0.01)}, False),
        ({"target": (2.0, 2.0, 0.01)}, False),
        ({"target": (2.0, None, 0.05)}, False),
        ({"deployment": "2 threads, batch 32"}, False),
        ({"instructions": ("AVX2", "AVX512-VNNI")}, False),
    ],
)
def test_alike(change, alike):
    other = dataclasses.replace(ABOUT, **change)
    assert history.similar(ABOUT, other) is alike
    assert history.similar(other, ABOUT) is alike


def test_what_won_more_often_of_the_runs_in_which_it_was_tried_comes_first():
    runs = [run(1, "c"), run(2, "c"), run(3, "b", tried=("b",)), run(4, "c", tried=("a", "c"))]
    found = history.ordered(("a", "b", "c", "d"), ABOUT, runs)
    assert found.slugs == ("c", "b", "a", "d"), "c three of three, b one of three; a and d as they stood"
    assert "4 earlier runs" in found.sentence
    assert "net-3 on digits, 2026-01-02: b" in found.sentence
    assert "--no-history" in found.sentence


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [run(1, "")],
        [run(1, "gone")],
        [run(1, "c", about=dataclasses.replace(ABOUT, layers=("attention",)))],
    ],
    ids=["none", "nothing met it", "a method that is gone", "another network"],
)
def test_where_nothing_was_learned_the_order_stays_and_nothing_is_said(runs):
    found = history.ordered(("a", "b", "c"), ABOUT, runs)
    assert found.slugs == ("a", "b", "c")
    assert found.sentence == ""


def test_many_runs_are_not_all_named():
    said = history.ordered(("a",), ABOUT, [run(i, "a") for i in range(30)]).sentence
    assert said.count("net-") == 5
    assert "net-29 " in said
    assert "25 more before" in said


def test_the_record_is_bounded_replaces_a_run_and_survives_damage():
    for i in range(history.KEPT + 3):
        history.add(run(i, "a"))
    kept = history.read()
    assert [r.id for r in kept] == [str(i) for i in range(3, history.KEPT + 3)]
    history.add(run(5, "b"))
    assert len(history.read()) == history.KEPT
    assert history.read()[-1] == run(5, "b")
    path = history.folder() / "improve.jsonl"
    lines = path.read_text().splitlines()
    odd = json.loads(lines[0])
    odd["about"]["parameters"] = "many"
    path.write_text("\n".join([lines[1], lines[2][:40], "[1]", "", json.dumps(odd), lines[3]]))
    assert [r.id for r in history.read()] == [kept[1].id, kept[3].id] or len(history.read()) == 2
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == [], "nothing half-written"


def test_runs_that_end_at_once_are_all_kept():
    with ThreadPoolExecutor(4) as several:
        list(several.map(lambda i: history.add(run(i, "a")), range(24)))
    assert {r.id for r in history.read()} == {str(i) for i in range(24)}


@pytest.mark.parametrize(
    ("name", "shape", "meaning", "layers"),
    [
        ("cnn", (1, 8, 8), "image", ("convolution",)),
        ("mlp", (6,), "table", ("matrix product",)),
        ("lstm", (5, 3), "sequence", ("matrix product", "recurrent")),
    ],
)
def test_circumstances_are_what_the_network_computes(name, shape, meaning, layers):
    x = torch.randn(60, *shape)
    task = nw.Task.from_arrays(x, torch.arange(60) % 2, meaning=meaning)
    network = nw.model(name, task.input_shape, task.outputs)
    found = history.circumstances(network, task, nw.Target(faster=3), Deployment(threads=2))
    assert found.task == f"classification of {meaning}"
    assert found.layers == layers
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.target == (3, None, None)
    assert found.deployment == "2 threads, batch 1"


@pytest.fixture(scope="module")
def task():
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    return nw.Task.from_arrays(x, (x[:, 0] + x[:, 1] > 0).long(), name="planes")


def test_improve_begins_with_what_won_says_so_and_keeps_its_order(task, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        plan, "default_methods", lambda: [catalogue.method(s) for s in ("static-int8", "dynamic-int8")]
    )
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    ).eval()
    target = nw.Target(smaller=1.2, max_drop=1.0)
    about = history.circumstances(network, task, target, Deployment())
    history.add(run(1, "dynamic-int8", tried=("static-int8", "dynamic-int8"), about=about))
    improve = lambda **more: nw.improve(
        network, task, smaller=1.2, max_drop=1.0, budget=300, out=tmp_path, as_it_is=True, **more
    )
    first = improve()
    said = capsys.readouterr().out
    assert "tried in the order of what won in 1 earlier run" in said
    assert [t["slug"] for t in first.trials][:2] == ["dynamic-int8", "static-int8"]
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["order"] == {
        "slugs": ["dynamic-int8", "static-int8"], "runs": ["net-1 on digits, 2026-01-02: dynamic-int8"],
    }  # fmt: skip
    assert "in the order of what won in 1 earlier run" in (tmp_path / "report.html").read_text()
    kept = history.read()
    assert len(kept) == 2
    assert set(kept[-1].tried) == {"dynamic-int8", "static-int8"}
    assert kept[-1].won == document["method"]
    assert kept[-1].about == about
    text = (history.folder() / "improve.jsonl").read_text()
    assert len(text) < 2000

    for i in range(5):
        history.add(run(f"later {i}", "static-int8", tried=("static-int8", "dynamic-int8"), about=about))
    before = history.read()
    again = improve(history=False)
    assert again.document["order"] == document["order"], "a study keeps the order that it began with"
    assert history.read() == before, "left out: not written either"
    improve()
    assert len(history.read()) == len(before), "the same study is one run, however often it goes on"
