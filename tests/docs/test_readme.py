"""Every command and example of the README runs, in a folder that holds what they speak of.

What takes minutes gets a shorter budget here, and is marked slow: `make readme` runs all of it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from tests.data.making import picture
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import netwright as nw
from netwright.app import cli
from netwright.core.network import seeded

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# what a command that is shown with '...' or a placeholder is completed with
REST = {
    "explain": "checkpoint.onnx --task photos/",
    "calibrate": "checkpoint.onnx --task photos/",
    "verify": "checkpoint.onnx --task photos/",
    "compress": "checkpoint.onnx --task photos/ --method static-int8",
}
MANY = {"improve", "compare"}  # try many methods
ELSEWHERE = {
    "claims",
    "beds",
}  # hours without a trained bed: they have tests of their own, and are only looked up here
BUDGET = "60s"


def commands() -> list[str]:
    """Every 'netwright ...' of the README's indented blocks, without what is said beside it; of 'a|b|c' each one."""
    found = []
    for line in re.findall(r"^ {4}(netwright .*)$", README, re.MULTILINE):
        for command in (part for part in re.split(r"\s{2,}", line) if part.startswith("netwright ")):
            name = command.split()[1]
            found += [command.replace(name, one, 1) for one in name.split("|")]
    return list(dict.fromkeys(found))


def completed(command: str) -> list[str]:
    """Its words, with what '...' and SLUG stand for, and a budget that a test can spend."""
    words = shlex.split(command)[1:]
    if "..." in words:
        words = [words[0], *REST[words[0]].split()]
    words = ["taylor-pruning" if word == "SLUG" else word for word in words]
    if "--budget" in words:
        words[words.index("--budget") + 1] = BUDGET
    elif words[0] in MANY | set(REST):
        words += ["--budget", BUDGET]
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """checkpoint.onnx and photos/, model.onnx and t.npz, improved/model.onnx and new.csv."""
    home = tmp_path_factory.mktemp("readme")
    for c, name in enumerate(("ok", "scratch")):
        (home / "photos" / name).mkdir(parents=True)
        for i in range(60):
            (home / "photos" / name / f"{i:02d}.png").write_bytes(picture(100 * c + i))
    photos = nw.task(str(home / "photos"))
    with seeded(0):
        seeing = nw.model("cnn", photos.input_shape, photos.outputs, widths=(8, 16))
    nw.Fit(epochs=10, lr=1e-2)(seeing, photos)
    nw.export(
        seeing, photos.raw().example(2), home / "checkpoint.onnx", photos.front, signature=photos.signature
    )
    x = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    np.savez(home / "t.npz", x=x, y=y)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
    nw.Fit(epochs=20, lr=1e-2)(network, nw.task(str(home / "t.npz")))
    nw.export(network, (torch.zeros(2, 6),), home / "model.onnx")
    rows = "\n".join(",".join(f"{v:.4f}" for v in row) for row in x[:40, :3])
    header = "height,width,weight"
    (home / "old.csv").write_text(
        f"{header},bad\n"
        + "\n".join(f"{r},{int(v)}" for r, v in zip(rows.split("\n"), y[:40], strict=True))
        + "\n"
    )
    (home / "new.csv").write_text(f"{header}\n{rows}\n")
    table = nw.task(str(home / "old.csv"), target="bad")
    (home / "improved").mkdir()
    nw.export(
        nn.Linear(3, 2), table.raw().example(2), home / "improved" / "model.onnx", table.front,
        signature=table.signature,
    )  # fmt: skip
    return home


def test_the_readme_shows_commands():
    names = {command.split()[1] for command in commands()}
    assert names >= {
        "improve",
        "compare",
        "predict",
        "inspect",
        "methods",
        "method",
        "data",
        "claims",
        "beds",
    } | set(REST)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=[pytest.mark.slow] if c.split()[1] in MANY | set(REST) else [])
        for c in commands()
        if c.split()[1] not in ELSEWHERE
    ],
)
def test_a_command_of_the_readme_runs(command, folder):
    done = subprocess.run(
        [sys.executable, "-m", "netwright.app.cli", *completed(command)], cwd=folder, capture_output=True, text=True,
        timeout=600, env=os.environ | {"COLUMNS": "160"},
    )  # fmt: skip
    met = (
        {0, 1} if command.split()[1] == "improve" else {0}
    )  # 1: what was asked is not met, which is an answer
    assert done.returncode in met, done.stderr
    assert done.stderr.strip() == ""
    assert done.stdout.strip()


@pytest.mark.slow
def test_the_example_in_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert 'budget="20m"' in code
    x = torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    train, val, test = (
        DataLoader(TensorDataset(x[a:b], y[a:b]), batch_size=64)
        for a, b in ((0, 400), (400, 500), (500, 600))
    )
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    nw.Fit(epochs=20, lr=1e-2)(
        module, nw.Task.from_loaders(train, val, test, classes=["ok", "scratch", "dent"])
    )
    names = {"train": train, "val": val, "test": test, "my_module": module}
    exec(compile(code.replace('"20m"', f'"{BUDGET}"'), "README.md", "exec"), names)
    assert isinstance(names["result"].network, nn.Module)
    assert names["result"].sentence in capsys.readouterr().out
    assert {"model.onnx", "model.pt2", "report.html"} <= {p.name for p in (tmp_path / "improved").iterdir()}


def test_the_demo_is_a_command_that_is_taken_and_leaves_the_history_of_its_user_out():
    (words,) = re.findall(
        r"^\t\$\(BIN\)/netwright (improve .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    command = typer.main.get_command(cli.app).commands["improve"]
    given = command.make_context("improve", shlex.split(words)[1:]).params
    assert given["no_history"]


def test_every_target_of_make_that_the_readme_names_is_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4})make ([a-z]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets
