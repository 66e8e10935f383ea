"""What is exported opens where nothing is imported but torch, or nothing but onnxruntime.

Every method with a place in `improve` on a CNN, and those that only rewrite (they bring operators of their own) on an
MLP and a transformer; the networks' own outputs are the reference. Networks of the same kinds of modules are written
once: a file of the same operators with other sizes shows nothing new.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conformance.cases import small
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.budget import Budget
from netwright.core.errors import NotApplicable
from netwright.core.files.export import export
from netwright.core.network import seeded
from netwright.core.split import Normalise
from netwright.core.task import Task
from netwright.models import build

WITH_TORCH = """
import sys, torch
found = []
for name in sys.argv[1:]:
    network = torch.export.load(name + ".pt2").module()
    with torch.no_grad():
        found += [network(*(torch.load(name + ".in", weights_only=True)[:rows],)) for rows in (1, 7)]
assert not [name for name in sys.modules if name.partition(".")[0] in ("netwright", "onnx")]
torch.save(found, "torch.out")
"""
WITH_ONNXRUNTIME = """
import sys, numpy, onnxruntime
found = {}
for i, name in enumerate(sys.argv[1:]):
    session = onnxruntime.InferenceSession(name + ".onnx", providers=["CPUExecutionProvider"])
    x = numpy.load(name + ".npy")
    for rows in (1, 7):
        found[f"{i:04} {rows}"] = session.run(None, {session.get_inputs()[0].name: x[:rows]})[0]
assert not [name for name in sys.modules if name.partition(".")[0] in ("netwright", "onnx", "torch")]
numpy.savez("onnxruntime.npz", **found)
"""


def tasks() -> Iterator[tuple[str, Task, nn.Module]]:
    """A name, a task of few rows, and a network for it."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 3
    pictures = (torch.rand(240, 1, 8, 8, generator=generator) * 60).floor() + 60 * y[:, None, None, None]
    look = Normalise([0.35], [0.25], 1 / 255)
    rows = torch.randn(240, 6, generator=generator) + y[:, None]
    words = torch.randint(0, 8, (240, 9), generator=generator) + 6 * y[:, None]
    for name, task, config in (
        ("cnn", Task.from_arrays(pictures, y, normalise=look), {"widths": (8, 16)}),
        ("mlp", Task.from_arrays(rows, y), {}),
        ("text-transformer", Task.from_arrays(words, y, meaning="tokens"), {"width": 16, "depth": 1}),
    ):
        with seeded(0):
            yield name, task, build(name, task.input_shape, task.outputs, **config).eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[Tensor, Tensor]]]:
    """A folder of files, and per stem the outputs that the network itself gives for 1 and 7 rows."""
    folder, expected = tmp_path_factory.mktemp("files"), {}
    served, written = set(), set()
    tried = [m for m in catalogue.methods().values() if m.improve > 0]
    for name, task, network in tasks():
        x, fed = task.raw().example(7)[0], task.example(7)[0]
        for method in tried:
            if method.trains and name != "cnn":
                continue  # a smaller network of the same operators
            try:
                made = method.build(**small(method.slug))(network, task, Budget(epochs=1))
            except NotApplicable:
                continue
            served.add((method.slug, name))
            kinds = (name, frozenset(type(module).__qualname__ for module in made.modules()))
            if kinds in written:
                continue
            written.add(kinds)
            stem = f"{method.slug}.{name}"
            for suffix in (".onnx", ".pt2"):
                assert export(made, (x,), folder / f"{stem}{suffix}", task.normalise).dynamic_batch, stem
            torch.save(x, folder / f"{stem}.in")
            np.save(folder / f"{stem}.npy", x.numpy())
            with torch.no_grad():
                expected[stem] = made.eval()(fed[:1]), made(fed)
    assert {slug for slug, name in served if name == "cnn"} == {m.slug for m in tried}, (
        "each serves a plain CNN"
    )
    return folder, expected


def fresh(code: str, folder: Path, names: list[str]) -> None:
    """Run code in an interpreter of its own, which sees no path of ours."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *names], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


def far(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / a.abs().max()).item()


def test_pt2_files_open_with_torch_alone(written: tuple[Path, dict[str, tuple[Tensor, Tensor]]]) -> None:
    folder, expected = written
    fresh(WITH_TORCH, folder, list(expected))
    found = torch.load(folder / "torch.out", weights_only=True)
    errors = {name: max(far(e, g) for e, g in zip(expected[name], found[2 * i : 2 * i + 2], strict=True))
              for i, name in enumerate(expected)}  # fmt: skip
    assert max(errors.values()) <= 1e-4, errors


def test_onnx_files_open_with_onnxruntime_alone(
    written: tuple[Path, dict[str, tuple[Tensor, Tensor]]],
) -> None:
    folder, expected = written
    fresh(WITH_ONNXRUNTIME, folder, list(expected))
    found = np.load(folder / "onnxruntime.npz")
    errors = {}
    for i, (name, pair) in enumerate(expected.items()):
        got = [torch.from_numpy(found[f"{i:04} {rows}"]) for rows in (1, 7)]
        errors[name] = max(far(e, g) for e, g in zip(pair, got, strict=True))
    assert max(errors.values()) <= 1e-4, errors


def test_netwright_itself_reads_them_in_a_fresh_process(
    written: tuple[Path, dict[str, tuple[Tensor, Tensor]]],
) -> None:
    folder, expected = written
    names = [name for name in expected if "int8" in name]
    code = (
        "import sys, torch, netwright\n"
        "found = [netwright.load(n + '.pt2')(torch.load(n + '.in', weights_only=True)) for n in sys.argv[1:]]\n"
        "torch.save(found, 'loaded.out')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(folder / "loaded.out", weights_only=True)
    assert max(far(expected[name][1], got) for name, got in zip(names, found, strict=True)) <= 1e-4
