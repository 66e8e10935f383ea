"""Networks from every kind of source; files that lie, lack or attack give one line and run nothing."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn

from netwright.core.errors import BadInput, NetwrightError
from netwright.core.files.export import export
from netwright.core.files.facts import describe
from netwright.core.files.load import check_match, input_shapes, load
from netwright.core.task import Task


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that hostile content would create."""
    path = tmp_path / "it_ran"
    yield path
    assert not path.exists(), "the file's code ran"


def refused(source: Any, pattern: str, **options: Any) -> str:
    with pytest.raises(BadInput, match=pattern) as caught:
        load(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def simple() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


# ---- what can be loaded


def test_a_module_is_returned_as_it_is() -> None:
    network = simple()
    assert load(network) is network


def test_pt2_follows_train_and_eval_and_trains(tmp_path: Path) -> None:
    network = simple()
    network(torch.randn(64, 4) * 2 + 1)
    path = export(network, (torch.randn(2, 4),), tmp_path / "m.pt2").path
    back = load(path)
    x = torch.randn(16, 4)
    torch.testing.assert_close(back(x), network.eval()(x))
    assert {n for n, _ in back.named_parameters()} == {n for n, _ in network.named_parameters()}
    before = back(x)
    back.train()
    assert not torch.allclose(back(x), before)  # dropout, and the batch's own statistics
    assert not torch.equal(dict(back.named_buffers())["1.running_mean"], network[1].running_mean)
    back(x).square().sum().backward()
    assert all(p.grad is not None for p in back.parameters())
    back.eval()
    for other in (copy.deepcopy(back), pickle.loads(pickle.dumps(back))):
        torch.testing.assert_close(other(x), back(x))
        assert input_shapes(other) == ((4,),)


def test_code_with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(4, 3)\n\n"
        "def build():\n    return nn.Linear(4, 3)\n\n"
        "def broken():\n    raise ValueError('no')\n"
        "def seven():\n    return 7\n"
    )
    monkeypatch.chdir(tmp_path)
    network = nn.Linear(4, 3)
    save_file(network.state_dict(), str(tmp_path / "w.safetensors"))
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "w.pt")
    for source in ("my_nets:build", f"{tmp_path}/my_nets.py:build"):
        for state in ("w.safetensors", "w.pt"):
            back = load(source, state=tmp_path / state)
            assert torch.equal(back.weight, network.weight)
    own = load(f"{tmp_path}/my_nets.py:Net")
    parcel = cloudpickle.dumps(own)
    code = f"import pickle; print(type(pickle.loads({parcel!r})).__name__)"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert elsewhere.stdout.strip() == "Net", elsewhere.stderr
    refused("my_nets:bild", "Did you mean 'build'")
    refused("my_nets:broken", r"failed \(ValueError: no\)")
    refused("my_nets:seven", "gives a int, not a torch module")
    refused("no_such_package.thing:build", "there is no module 'no_such_package'")
    save_file({"weight": torch.zeros(2, 4), "more": torch.zeros(1)}, str(tmp_path / "wrong.safetensors"))
    refused(
        "my_nets:build", r"lacks 'bias'; has the unknown 'more'; 'weight' is \(2, 4\), not \(3, 4\)",
        state=tmp_path / "wrong.safetensors",
    )  # fmt: skip
    refused("my_nets:build", "no such file", state=tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:40])
    refused("my_nets:build", "is no complete safetensors file", state=tmp_path / "cut.safetensors")


# ---- pickles


def test_a_pickled_module_needs_trust(tmp_path: Path) -> None:
    path = tmp_path / "my.pt"
    torch.save(nn.Linear(4, 3), path)
    text = refused(path, "pickled object")
    assert text == (
        f"{path} holds a pickled object, which could run code when loaded. If you trust it: --trust-pickle. "
        "Better: export it with torch.export.save or safetensors."
    )
    assert isinstance(load(path, trust_pickle=True), nn.Linear)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_hostile_pickle_runs_nothing(suffix: str, legacy: bool, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / f"my{suffix}"
    torch.save({"model": Bomb(mark)}, path, _use_new_zipfile_serialization=not legacy)
    refused(path, "holds a pickled object, which could run code")


def test_the_hostile_pickle_would_run(tmp_path: Path) -> None:
    """The bomb is live: where the user insists, it goes off. So the tests above can fail."""
    path, mark = tmp_path / "my.pt", tmp_path / "it_ran"
    torch.save({"model": Bomb(mark)}, path)
    with pytest.raises(BadInput, match="holds weights but no network"):
        load(path, trust_pickle=True)
    assert mark.exists()


def test_a_hostile_state_runs_nothing_even_if_pickles_are_trusted(tmp_path: Path, mark: Path) -> None:
    torch.save({"weight": Bomb(mark)}, tmp_path / "w.pt")
    with pytest.raises(BadInput, match="holds a pickled object"):
        load(nn.Linear(4, 3), state=tmp_path / "w.pt", trust_pickle=True)


def test_weights_alone_are_no_network(tmp_path: Path) -> None:
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "w.pt")
    save_file(nn.Linear(4, 3).state_dict(), str(tmp_path / "w.safetensors"))
    for name in ("w.pt", "w.safetensors"):
        refused(tmp_path / name, "holds weights but no network. Name the code that builds it")


def rewrite(path: Path, changes: dict[str, bytes]) -> None:
    """Replace or add members of a .pt2 archive."""
    writer = torch._C.PyTorchFileWriter(str(path) + ".new")
    reader = torch._C.PyTorchFileReader(str(path))
    for name in {*reader.get_all_records(), *changes} - {
        ".data/version",
        "byteorder",
        ".data/serialization_id",
    }:
        content = changes.get(name) or reader.get_record(name)
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    os.replace(str(path) + ".new", path)


def member(path: Path, name: str) -> Any:
    return json.loads(torch._C.PyTorchFileReader(str(path)).get_record(name))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return export(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (torch.randn(2, 4),), tmp_path / "m.pt2").path


def pickled(thing: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def test_pt2_with_hostile_pickles(program: Path, mark: Path) -> None:
    """In the sample inputs, as a weight, as a constant: torch.export.load would unpickle each."""
    whole = program.read_bytes()
    bomb = pickled((Bomb(mark),))
    rewrite(program, {"data/sample_inputs/model.pt": bomb})
    refused(program, "holds a pickled object, which could run code when loaded")
    program.write_bytes(whole)
    config = member(program, "data/weights/model_weights_config.json")
    config["config"]["0.weight"] |= {"use_pickle": True}
    rewrite(
        program,
        {
            "data/weights/model_weights_config.json": json.dumps(config).encode(),
            "data/weights/weight_0": bomb,
        },
    )
    refused(program, "holds a pickled object")
    program.write_bytes(whole)
    entry = {**config["config"]["0.weight"], "path_name": "opaque_obj_0", "is_param": False}
    rewrite(
        program,
        {
            "data/constants/model_constants_config.json": json.dumps({"config": {"c": entry}}).encode(),
            "data/constants/opaque_obj_0": pickle.dumps(Bomb(mark)),
        },
    )
    refused(program, "holds a pickled object")


def test_pt2_with_hostile_words(program: Path, mark: Path) -> None:
    """Size expressions are evaluated as Python, operators looked up by name in all of torch."""
    whole, name = program.read_bytes(), "models/model.json"
    text = json.dumps(member(program, name))
    target = "torch.ops.aten.relu.default"
    assert target in text
    rewrite(program, {name: text.replace(target, "torch.serialization.os.system").encode()})
    refused(program, r"holds the operator torch\.serialization\.os\.system, which could run code")
    program.write_bytes(whole)
    writes_a_file = {
        "target": "torch.ops.aten.from_file.default", "metadata": {},
        "inputs": [
            {"name": "filename", "arg": {"as_string": str(mark)}, "kind": 1},
            {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
            {"name": "size", "arg": {"as_int": 4}, "kind": 1},
        ],
    }  # fmt: skip
    model = json.loads(text)
    model["graph_module"]["graph"]["nodes"][-1] |= writes_a_file
    rewrite(program, {name: json.dumps(model).encode()})
    refused(program, r"holds the operator torch\.ops\.aten\.from_file")
    program.write_bytes(whole)
    model = json.loads(text)
    hostile = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    model["graph_module"]["graph"]["sym_int_values"]["s9"] = {"as_expr": {"expr_str": hostile, "hint": None}}
    rewrite(program, {name: json.dumps(model).encode()})
    refused(program, "holds the expression __import__")


# ---- broken files


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".pt", ".pth"])
def test_files_that_are_none(suffix: str, tmp_path: Path) -> None:
    refused(tmp_path / f"none{suffix}", "no such file")
    (tmp_path / f"folder{suffix}").mkdir()
    refused(tmp_path / f"folder{suffix}", "is a folder")
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"")
    refused(path, "is empty")
    path.write_text("Once upon a time there was no network here.\n" * 20)
    refused(path, "is no .* or only a part of one")
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    refused(path, "is no .* or only a part of one")


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".pt"])
def test_truncated_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    if suffix == ".pt":
        torch.save(nn.Linear(40, 30), path)
    else:
        export(nn.Linear(40, 30), (torch.randn(2, 40),), path)
    whole = path.read_bytes()
    for part in (0.05, 0.3, 0.6, 0.9, 0.99):
        path.write_bytes(whole[: int(part * len(whole))])
        refused(path, str(path))


def test_other_things(tmp_path: Path) -> None:
    refused(7, "a network is a torch module")
    (tmp_path / "m.txt").write_text("x")
    refused(tmp_path / "m.txt", "a network is an .onnx file")
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/constants.pkl", b"x")
    refused(tmp_path / "m.pt", "is a TorchScript archive")


# ---- ONNX files with weights beside them


def with_weights_beside(folder: Path, location: str, **entries: int) -> Path:
    tensor = numpy_helper.from_array(np.zeros((4, 3), np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])], [tensor],
    )  # fmt: skip
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_weights_beside_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 48)
    numbers = np.arange(12, dtype=np.float32)
    (folder / "w.bin").write_bytes(b"skip" + numbers.tobytes())
    back = load(with_weights_beside(folder, "w.bin", offset=4, length=48))
    torch.testing.assert_close(back(torch.eye(4)), torch.from_numpy(numbers.reshape(4, 3)))
    refused(
        with_weights_beside(folder, "gone.bin"), "keeps its weights in 'gone.bin', which is not beside it"
    )
    refused(with_weights_beside(folder, "w.bin", offset=40, length=48), "does not hold all of the tensor 'w'")
    for outside in ("../secret", str(secret), "a/../../secret"):
        refused(with_weights_beside(folder, outside), "outside its folder; refused")
    (folder / "link").symlink_to(secret)
    refused(with_weights_beside(folder, "link"), "outside its folder; refused")


def test_onnx_that_refers_to_nothing(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["nowhere"], ["y"], name="act")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    refused(tmp_path / "m.onnx", "node 'act' reads 'nowhere', which nothing gives")


# ---- does it fit the task?


def a_task(*shape: int, classes: int = 3) -> Task:
    rng = np.random.default_rng(0)
    return Task.from_arrays(
        rng.normal(size=(40, *shape)).astype(np.float32), np.arange(40) % classes, name="mine"
    )


def does_not_fit(network: nn.Module, task: Task, pattern: str) -> None:
    with pytest.raises(NetwrightError, match=pattern) as caught:
        check_match(network, task)
    assert "\n" not in str(caught.value)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_fits(capfd: pytest.CaptureFixture[str]) -> None:
    task = a_task(4)
    check_match(simple(), task)
    does_not_fit(nn.Linear(4, 5), task, "the network gives 5 outputs, but task 'mine' has 3 classes")
    does_not_fit(nn.Linear(5, 3), task, "cannot run on task 'mine', whose inputs are 4: mat1 and mat2")
    does_not_fit(Pair(), task, "gives a tuple")
    does_not_fit(
        nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)), task, r"outputs of shape \(9,\) for 3 examples"
    )
    said = nn.Linear(4, 3)
    describe(said, {"inputs": [("input", (1, 28, 28))], "batch": None})
    does_not_fit(said, task, r"takes 1x28x28, but task 'mine' gives 4 \(without the batch\)")
    describe(said, {"inputs": [("input", (4,))], "batch": 1})
    does_not_fit(said, task, "takes batches of 1 only")
    assert capfd.readouterr() == ("", "")
