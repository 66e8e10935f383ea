"""`netwright predict` on raw data gives what the network gives on the task, and the accuracy that the report states."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import netwright as nw
from netwright.app.feeding.ways import exchanged
from netwright.app.report.result import Result
from netwright.core.errors import BadInput
from netwright.core.files.load import signature_for, signature_of
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.signature import Signature
from netwright.core.task import Task
from netwright.data import task as open_task

ROLES = ("train", "val", "test")


def table(path: Path, rows: int, seed: int) -> pd.DataFrame:
    """Numbers, text and flags; `sold` depends on all of them, `price` is a number."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "weight": rng.normal(70, 12, rows), "port": rng.choice(["Cork", "Brest", "São Paulo"], rows),
        "new": rng.random(rows) < 0.5, "age": rng.integers(18, 80, rows),
    })  # fmt: skip
    value = (frame.weight - 70) / 12 + (frame.port == "Cork") * 2 - frame.new * 1.5 + rng.normal(0, 0.7, rows)
    frame["sold"] = np.where(value > 0.1, "yes", "no")
    frame["price"] = 100 + 20 * value
    frame.to_csv(path, index=False)
    return frame


def pictures(root: Path) -> None:
    """train, val and test, a folder a class: noisy ones that are bright, dark or striped, of two sizes."""
    rng = np.random.default_rng(0)
    for role, count in (("train", 40), ("val", 20), ("test", 20)):
        for label, (base, stripe) in {"bright": (132, 0), "dark": (118, 0), "striped": (118, 20)}.items():
            folder = root / role / label
            folder.mkdir(parents=True)
            for i in range(count):
                x = rng.normal(base, 40, (8, 8, 3)) + stripe * (np.arange(8) % 2)[:, None, None]
                Image.fromarray(x.clip(0, 255).astype(np.uint8)).resize((8 + 4 * (i % 2), 8)).save(
                    folder / f"{i}.png"
                )


def trained(task: Task, epochs: int = 4) -> nn.Module:
    with seeded(0):
        network = nn.Sequential(
            nn.Flatten(),
            nn.Linear(int(np.prod(task.input_shape)), 16),
            nn.ReLU(),
            nn.Linear(16, task.outputs),
        )
    nw.Fit(epochs=epochs, lr=5e-3)(network, task)
    return network.eval()


def written(network: nn.Module, task: Task, path: Path) -> Path:
    nw.export(network, task.raw().example(2), path, task.front, signature=signature_for(network, task))
    return path


def netwright(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "netwright.app.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def improved(task: Task, folder: Path) -> Result:
    return nw.improve(
        trained(task), task, smaller=1.1, max_drop=1.0, budget=20, methods=["dynamic-int8"], out=folder
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data of three kinds, each with the rows that judge as data of its own, and what `improve` made of it."""
    root = tmp_path_factory.mktemp("raw")
    table(root / "known.csv", 300, 0)
    later = table(root / "later.csv", 240, 1)
    pictures(root / "pictures")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (500, 6, 5), np.uint8)
    y = (x.mean((1, 2)) + rng.normal(0, 4, 500) > 127).astype(np.int64)
    cuts = {"train": slice(300), "val": slice(300, 400), "test": slice(400, 500)}
    arrays = {f"{n}_{r}": a[cut] for r, cut in cuts.items() for n, a in (("x", x), ("y", y))}
    np.savez(root / "arrays.npz", **arrays)
    np.savez(root / "test.npz", x=x[400:], y=y[400:])
    tasks = {
        "table": open_task(root / "known.csv", target="sold", drop="price", unseen=root / "later.csv"),
        "pictures": open_task(root / "pictures"), "arrays": open_task(root / "arrays.npz"),
    }  # fmt: skip
    for name, task in tasks.items():
        result = improved(task, root / f"{name}-out")
        assert result.document["signature"] == signature_for(nn.Identity(), task).to_json()
    weights = tasks["table"].raw().test.batches(1000)
    held = {round(float(w), 3) for x, _ in weights for w in x[:, 0]}
    later[later.weight.round(3).isin(held) | later.weight.astype(np.float32).round(3).isin(held)].to_csv(
        root / "test.csv", index=False
    )
    return root


@pytest.mark.parametrize(
    ("kind", "data"), [("table", "test.csv"), ("pictures", "pictures/test"), ("arrays", "test.npz")]
)
@pytest.mark.parametrize("file", ["model.onnx", "model.pt2"])
def test_raw_data_give_the_accuracy_that_the_report_states(
    folder: Path, kind: str, data: str, file: str
) -> None:
    out = folder / f"{kind}-out"
    stated = json.loads((out / "result.json").read_text())["after"]["accuracy"]
    found = nw.predict(out / file, folder / data)
    assert found.scores["accuracy"] == stated
    assert 0.4 < stated < 1


def test_the_command_writes_what_it_predicts_and_says_how_right_it_is(folder: Path) -> None:
    stated = json.loads((folder / "pictures-out/result.json").read_text())["after"]["accuracy"]
    made = folder / "made.csv"
    said = netwright("predict", folder / "pictures-out/model.onnx", folder / "pictures/test", "--out", made)
    assert f"accuracy {100 * stated:.1f} % on 60 rows" in said
    rows = list(csv.DictReader(made.open()))
    assert len(rows) == 60
    assert set(rows[0]) == {"row", "class", "probability"}
    right = [row["row"].partition("/")[0] == row["class"] for row in rows]
    assert np.mean(right) == pytest.approx(stated)
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)
    single = netwright(
        "predict", folder / "pictures-out/model.pt2", folder / "pictures/test/dark/3.png", "--json"
    )
    (one,) = json.loads(single)["predictions"]
    (same,) = [row for row in rows if row["row"] == "dark/3.png"]
    assert one["class"] == same["class"]


def test_the_reports_own_code_runs_where_nothing_else_is_imported(folder: Path) -> None:
    for kind in ("table", "pictures", "arrays"):
        text = (folder / f"{kind}-out/report.html").read_text()
        blocks = [unescape(block) for block in re.findall(r"<code>(.*?)</code>", text, re.S)]
        code = [b for b in blocks if b.startswith("import")]
        assert len(code) == 2
        for block, result in zip(code, ("logits", "logits"), strict=True):
            check = f"\nimport sys\nassert 'netwright' not in sys.modules\nprint(tuple({result}.shape))"
            done = subprocess.run(
                [sys.executable, "-I", "-c", block + check],
                cwd=folder / f"{kind}-out",
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip() == str((1, 3 if kind == "pictures" else 2))
    assert "What it takes and gives" in text
    columns = unescape((folder / "table-out/report.html").read_text())
    assert (
        "weight; port = Brest (1 or 0); port = Cork (1 or 0); port = São Paulo (1 or 0); new; age" in columns
    )


def test_regression_values_and_their_errors(tmp_path: Path) -> None:
    frame = table(tmp_path / "t.csv", 300, 2)
    task = open_task(tmp_path / "t.csv", target="price", drop="sold")
    file = written(trained(task), task, tmp_path / "m.onnx")
    found = nw.predict(file, tmp_path / "t.csv")
    assert found.values is not None
    error = found.values[:, 0] - frame.price.to_numpy()
    assert found.scores["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert found.scores["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert found.scores["r2"] == pytest.approx(
        1 - (error**2).sum() / ((frame.price - frame.price.mean()) ** 2).sum(), rel=1e-4
    )
    found.to_csv(tmp_path / "p.csv")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv").price, found.values[:, 0], rtol=1e-6)
    bare = nw.predict(file, frame.drop(columns=["price", "sold"]))
    assert not bare.scores
    np.testing.assert_array_equal(bare.values, found.values)


def test_what_a_table_lacks_or_has_new(tmp_path: Path) -> None:
    frame = table(tmp_path / "t.csv", 300, 3)
    task = open_task(tmp_path / "t.csv", target="sold", drop="price")
    file = written(trained(task, 1), task, tmp_path / "m.onnx")
    with pytest.raises(BadInput, match="no column 'port'"):
        nw.predict(file, frame.drop(columns="port"))
    frame.loc[:4, "port"] = "Lagos"
    found = nw.predict(file, frame)
    assert len(found) == 300
    assert "'Lagos'" in found.notes[0]
    assert "5 of 300 rows" in found.notes[0]
    frame.loc[7, "age"] = None
    with pytest.raises(BadInput, match=r"missing values in 1 column \(age 1\)"):
        nw.predict(file, frame)
    with pytest.raises(BadInput, match="takes a table with the columns weight, port, new, age"):
        nw.predict(file, tmp_path)


def test_missing_values_are_filled_as_they_were(tmp_path: Path) -> None:
    frame = table(tmp_path / "t.csv", 300, 4)
    frame.loc[::7, "age"] = None
    frame.loc[::11, "port"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    task = open_task(tmp_path / "t.csv", target="sold", drop="price", missing="median")
    network = trained(task)
    found = nw.predict(written(network, task, tmp_path / "m.onnx"), tmp_path / "t.csv")
    parts = [evaluate(network, task, role)["accuracy"] * len(getattr(task, role)) for role in ROLES]
    assert found.scores["accuracy"] == pytest.approx(sum(parts) / 300)


class Two(nn.Module):
    """The second input decides more than the first."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.words = nn.Linear(3, 2), nn.Embedding(9, 2)

    def forward(self, left: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return self.left(left) + 3 * self.words(words).mean(1)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_several_inputs_by_their_names(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    left, tokens = rng.normal(size=(90, 3)).astype(np.float32), rng.integers(0, 9, (90, 5))
    y = (tokens.mean(1) > 4).astype(np.int64)
    task = Task.from_arrays((left, tokens), y)
    with seeded(0):
        network = Two().eval()
    named = task.signature
    inputs = [replace(i, name=name) for i, name in zip(named.inputs, ("left", "words"), strict=True)]
    file = tmp_path / f"m{suffix}"
    nw.export(network, task.example(2), file, signature=replace(named, inputs=tuple(inputs)))
    found = nw.predict(file, {"words": tokens, "left": left, "y": y})
    with torch.no_grad():
        expected = network(torch.from_numpy(left), torch.from_numpy(tokens)).softmax(1).numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert found.scores["accuracy"] == np.mean(expected.argmax(1) == y)
    again = signature_for(nw.load(file), task)
    assert [i.name for i in again.inputs] == ["left", "words"]
    with pytest.raises(BadInput, match="no array 'words'"):
        nw.predict(file, {"left": left})


def test_pictures_for_a_file_that_has_its_channels_last(tmp_path: Path) -> None:
    pictures(tmp_path / "p")
    task = open_task(tmp_path / "p")
    network = trained(task)
    task = replace(task, axes=(0, 2, 3, 1))
    file = written(network, task, tmp_path / "m.onnx")
    told = signature_of(file)
    assert told is not None
    assert (told.inputs[0].layout, told.inputs[0].shape) == ("HWC", (8, 8, 3))
    assert (
        nw.predict(file, tmp_path / "p/test").scores["accuracy"]
        == evaluate(network, task, "test")["accuracy"]
    )


def test_arrays_for_a_network_that_takes_columns_first(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (120, 1, 6, 6), np.uint8)
    y = (x[:, 0, :, :3].mean((1, 2)) > 127).astype(np.int64)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    task = exchanged(open_task(tmp_path / "a.npz"))
    network = trained(task)
    found = nw.predict(written(network, task, tmp_path / "m.onnx"), tmp_path / "a.npz")
    parts = [evaluate(network, task, role)["accuracy"] * len(getattr(task, role)) for role in ROLES]
    assert found.scores["accuracy"] == pytest.approx(sum(parts) / 120)


def test_pictures_that_are_broken_or_unlabelled(tmp_path: Path) -> None:
    pictures(tmp_path / "p")
    task = open_task(tmp_path / "p")
    file = written(trained(task, 1), task, tmp_path / "m.onnx")
    loose = tmp_path / "loose"
    loose.mkdir()
    for i in range(3):
        (loose / f"{i}.png").write_bytes((tmp_path / f"p/test/dark/{i}.png").read_bytes())
    (loose / "9.png").write_bytes(b"no picture")
    found = nw.predict(file, loose)
    assert found.rows == ("0.png", "1.png", "2.png")
    assert not found.scores
    assert "9.png" in found.notes[0]
    assert repr(found) == "Predictions(m.onnx: 3 rows)"


def test_a_file_without_a_signature_takes_arrays_only(tmp_path: Path) -> None:
    table(tmp_path / "t.csv", 30, 5)
    network = nn.Linear(4, 3)
    for suffix in (".onnx", ".pt2"):
        file = tmp_path / f"m{suffix}"
        nw.export(network, (torch.randn(2, 4),), file)
        x = np.random.default_rng(0).normal(size=(7, 4))
        found = nw.predict(file, {"x": x})
        np.testing.assert_allclose(
            found.values, network(torch.from_numpy(x).float()).detach().numpy(), atol=1e-5
        )
        with pytest.raises(BadInput, match="carries no signature"):
            nw.predict(file, tmp_path / "t.csv")
        with pytest.raises(BadInput, match="has rows of 5"):
            nw.predict(file, {"x": np.zeros((7, 5))})


def test_a_signature_that_came_back_is_the_one_that_was_given(tmp_path: Path) -> None:
    table(tmp_path / "t.csv", 60, 6)
    task = open_task(tmp_path / "t.csv", target="sold", drop="price", missing="median")
    network = trained(task, 1)
    for suffix in (".onnx", ".pt2"):
        file = written(network, task, tmp_path / f"m{suffix}")
        assert signature_of(file) == task.signature == signature_of(nw.load(file))
        assert Signature.from_json(json.dumps(task.signature.to_json())) == task.signature


def test_a_file_that_normalises_its_inputs_itself_says_so_in_what_is_made_of_it(tmp_path: Path) -> None:
    pictures(tmp_path / "p")
    task = open_task(tmp_path / "p")
    given = nw.load(written(trained(task), task, tmp_path / "given.onnx"))
    bare = task.raw()
    told = signature_for(given, bare)
    assert told == task.signature
    nw.export(given, bare.example(2), tmp_path / "m.pt2", signature=told)
    found = nw.predict(tmp_path / "m.pt2", tmp_path / "p/test")
    assert found.scores["accuracy"] == evaluate(given, bare, "test")["accuracy"]


def test_labels_and_several_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4)).astype(np.float32)
    labels = (x[:, :3] + rng.normal(0, 0.5, (120, 3)) > 0).astype(np.int64)
    values = (x[:, :2] * 3 + 1).astype(np.float32)
    for y, kind in ((labels, "multilabel"), (values, "regression")):
        task = Task.from_arrays(x, y, kind=kind)
        network = trained(task)
        found = nw.predict(written(network, task, tmp_path / "m.onnx"), {"x": x, "y": y})
        whole = replace(
            task, test=replace(task.test, inputs=(torch.from_numpy(x),), targets=torch.from_numpy(y))
        )
        expected = evaluate(network, whole, "test")
        assert found.scores
        for name, value in found.scores.items():
            assert value == pytest.approx(expected[name], rel=1e-5)
        assert list(found.table(1)[0])[1:] == list(found.names)
        assert len(found.names) == y.shape[1]


@pytest.mark.parametrize(
    ("file", "data", "says"),
    [
        ("no.onnx", "t.csv", "no such file"),
        ("t.csv", "t.csv", "no .onnx or .pt2"),
        ("m.onnx", "no.csv", "no such"),
    ],
)
def test_bad_use_is_one_line(tmp_path: Path, file: str, data: str, says: str) -> None:
    table(tmp_path / "t.csv", 60, 7)
    task = open_task(tmp_path / "t.csv", target="sold", drop="price")
    written(trained(task, 1), task, tmp_path / "m.onnx")
    with pytest.raises(BadInput, match=says) as caught:
        nw.predict(tmp_path / file, tmp_path / data)
    assert "\n" not in str(caught.value)
