"""What is said about the rows that judge a network."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import netwright as nw
from netwright.app.compare import compare
from netwright.app.feeding import seen
from netwright.app.feeding.seen import duplicates, look, memorised
from netwright.core.files.export import export
from netwright.core.network import seeded
from netwright.core.task import Task

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(4, 20))


def rows(count, seed):
    """Four blurred classes: no network can tell them apart everywhere."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, count)
    return (0.45 * CENTRES[y] + rng.normal(size=(count, 20))).astype(np.float32), y


@pytest.fixture(scope="module")
def crammed():
    """A network that knows 500 rows by heart, and those rows."""
    x, y = rows(500, 1)
    with seeded(0):
        net = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 4))
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
        for _ in range(300):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(inputs), targets).backward()
            optimiser.step()
    assert (net(inputs).argmax(1) == targets).double().mean() == 1
    return net.eval(), x, y


def test_knowing_rows_by_heart_is_told_from_knowing_the_task(crammed):
    net, x, y = crammed
    found = memorised(net, Task.from_arrays(x, y, test=rows(800, 2)))
    assert found.by_heart
    assert found.train == 1
    assert (found.train_rows, found.val_rows) == (500, 400)
    said = r"the network has learned some training rows by heart: 100.0 % .* on 500 of them, .* 400 validation rows"
    assert re.fullmatch(said, found.sentence)
    fresh = memorised(net, Task.from_arrays(*rows(500, 3), test=rows(800, 2)))
    assert not fresh.by_heart
    assert fresh.sentence == ""


def test_values_known_by_heart_are_told_too():
    x = RNG.normal(size=(300, 4)).astype(np.float32)
    y = (x[:, 0] + RNG.normal(size=300)).astype(np.float32)
    table = {tuple(row): value for row, value in zip(x[:150].tolist(), y[:150].tolist(), strict=True)}

    class Remembers(nn.Module):
        def forward(self, x):
            return torch.tensor([[table.get(tuple(row), row[0])] for row in x.tolist()])

    task = Task.from_arrays(x[:150], y[:150], test=(x[150:], y[150:]))
    found = memorised(Remembers(), task)
    assert found.by_heart
    assert "an R2 of 1.000 on 150" in found.sentence


@pytest.mark.parametrize("kind", ["arrays", "loaders"])
def test_exact_duplicates_are_counted(kind):
    x, y = rows(400, 1)
    fresh, labels = rows(60, 2)
    fresh[:7], labels[:7] = x[:7], y[:7]
    fresh[7], labels[7] = x[7], (y[7] + 1) % 4  # another target: not the same row
    if kind == "arrays":
        task = Task.from_arrays(x, y, val=(fresh, labels), test=rows(50, 3))
    else:
        load = lambda a, b: DataLoader(TensorDataset(torch.from_numpy(a), torch.from_numpy(b)), batch_size=16)
        task = Task.from_loaders(load(x, y), load(fresh, labels), load(*rows(50, 3)))
    found = duplicates(task)
    assert (found.val, found.test, found.complete) == (7, 0, True)
    assert found.looked == {"train": 400, "val": 60, "test": 50}
    assert found.sentence.startswith("7 of 60 validation rows are exact duplicates of training rows:")


def test_large_data_are_sampled_and_it_is_said(monkeypatch):
    x, y = rows(3000, 1)
    task = Task.from_arrays(x, y, test=(x[:1000], y[:1000]))
    assert (duplicates(task).val, duplicates(task).test) == (500, 500)
    monkeypatch.setattr(seen, "HASHED", 600 * 200)
    found = duplicates(task)
    assert found.looked["train"] == 600
    assert not found.complete
    assert 0 < found.val + found.test < 1000
    assert "(of the 600 that were looked at)" in found.sentence
    assert duplicates(task) == found


def test_only_a_given_network_may_have_seen_what_we_cut(crammed):
    net, x, y = crammed
    pool, told = Task.from_arrays(x, y), Task.from_arrays(x, y, test=rows(800, 2))
    assert look(net, pool, given=True).warnings[0] == seen.MAY_HAVE_SEEN
    assert look(net, pool, given=False).warnings == ()
    said = look(net, told, given=True).warnings
    assert len(said) == 1
    assert "by heart" in said[0]
    figures = look(net, told, given=True).figures
    assert figures["division"] == "halved"
    assert figures["duplicates"]["test"] == 0
    json.dumps(figures)


@pytest.mark.parametrize("fresh", [False, True])
def test_the_warning_stands_in_terminal_result_and_report(crammed, tmp_path, capsys, fresh):
    net, x, y = crammed
    export(net, (torch.from_numpy(x[:2]),), tmp_path / "net.onnx")
    x_val, y_val = rows(800, 2)
    arrays = {"x_train": x, "y_train": y, "x_val": x_val, "y_val": y_val} if fresh else {"x": x, "y": y}
    np.savez(tmp_path / "data.npz", **arrays)
    result = nw.improve(
        str(tmp_path / "net.onnx"), str(tmp_path / "data.npz"), smaller=1.5, max_drop=0.2, budget=20,
        methods=["static-int8"], out=tmp_path / "out", quiet=False,
    )  # fmt: skip
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    page = re.sub(r"\s+", " ", (tmp_path / "out" / "report.html").read_text())
    warning = "the network may have learned from them"
    for place in (said, " ".join(document["warnings"]), page):
        assert (warning in place) is not fresh
        assert ("by heart: 100.0 % accuracy" in place) is fresh
    assert document["data"]["division"] == ("halved" if fresh else "ours")
    if fresh:
        truth = rows(20_000, 5)
        hits = (net(torch.from_numpy(truth[0])).argmax(1).numpy() == truth[1]).mean()
        error = (hits * (1 - hits) / len(result.task.test)) ** 0.5
        assert abs(document["before"]["accuracy"] - hits) < 3 * error


def test_a_comparison_says_it_too(crammed):
    net, x, y = crammed
    found = compare(
        "calibrate", net, Task.from_arrays(x, y), nw.Budget(seconds=5), methods=["temperature-scaling"]
    )
    assert found.seen.warnings[0] == seen.MAY_HAVE_SEEN
    document = found.to_json()
    assert document["warnings"][0] == seen.MAY_HAVE_SEEN
    assert document["data"]["division"] == "ours"
