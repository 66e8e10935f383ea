"""Exported files give the network's outputs, or are not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from netwright.compress.dynamic_int8 import DynamicInt8
from netwright.compress.static_int8 import StaticInt8
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NetwrightError, NotApplicable
from netwright.core.files import export as module
from netwright.core.files.export import export
from netwright.core.files.load import input_shapes, load, normalises
from netwright.core.split import Normalise
from netwright.core.task import Task


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(144, 5),
    )
    network = nn.Sequential(*layers)
    network(torch.randn(32, 1, 8, 8))  # statistics that are not 0 and 1
    return network


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 3)
        self.table = nn.Embedding(9, 3)

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(x) + self.table(ids).mean(1), x


class Branch(nn.Module):
    """Follows the values of its input: no exporter can write that down."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 1e6 else x


class PairsOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 8) @ torch.eye(8)


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i1(x)


def run(path: Path, *inputs: Tensor) -> list[np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: t.numpy() for i, t in zip(session.get_inputs(), inputs, strict=True)})


def test_onnx_with_normalisation_in_front(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network, normalise = small(), Normalise([0.4], [0.2], 1 / 255)
    raw = torch.randint(0, 256, (2, 1, 8, 8)).float()
    made = export(network, (raw,), tmp_path / "deep" / "m.onnx", normalise)
    assert network.training  # left as it was
    assert made.dynamic_batch
    assert made.max_error < 1e-5
    assert made.bytes == made.path.stat().st_size
    assert [p.name for p in made.path.parent.iterdir()] == ["m.onnx"]  # self-contained
    network.eval()
    raw = torch.randint(0, 256, (7, 1, 8, 8)).float()
    expected = network(normalise(raw)).detach().numpy()
    np.testing.assert_allclose(run(made.path, raw)[0], expected, rtol=1e-4, atol=1e-5)
    model = onnx.load(made.path)
    assert [v.name for v in (*model.graph.input, *model.graph.output)] == ["input", "output"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert normalises(load(made.path))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_pt2_with_normalisation_in_front(tmp_path: Path) -> None:
    network, normalise = small(), Normalise([0.4], [0.2], 1 / 255)
    raw = torch.randint(0, 256, (2, 1, 8, 8)).float()
    made = export(network, (raw,), tmp_path / "m.pt2", normalise)
    assert made.dynamic_batch
    back = load(made.path)
    assert normalises(back)
    raw = torch.randint(0, 256, (7, 1, 8, 8)).float()
    torch.testing.assert_close(back(raw), network.eval()(normalise(raw)))


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    example = torch.randn(3, 4), torch.randint(0, 9, (3, 5))
    network = TwoInputs()
    for suffix in (".onnx", ".pt2"):
        made = export(network, example, tmp_path / f"m{suffix}")
        assert made.dynamic_batch
        back = load(made.path)
        torch.testing.assert_close(back(*example), network(*example))
        assert input_shapes(back) == ((4,), (5,))
        assert not normalises(back)
    names = [v.name for v in onnx.load(tmp_path / "m.onnx").graph.input]
    assert names == ["input_0", "input_1"]


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_network_that_writes_to_its_input_and_gives_none(suffix: str, tmp_path: Path) -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            return self.layer(x.sub_(0.5).div_(0.2)), None

    x = torch.rand(2, 4)
    before = x.clone()
    assert export(Writing(), (x,), tmp_path / f"m{suffix}").max_error < 1e-5
    assert torch.equal(x, before)


def test_a_batch_that_the_network_fixes(tmp_path: Path) -> None:
    made = export(PairsOnly(), (torch.randn(2, 8),), tmp_path / "m.pt2")
    assert not made.dynamic_batch
    assert (
        export(small(), (torch.randn(3, 1, 8, 8),), tmp_path / "m.onnx", dynamic_batch=False).dynamic_batch
        is False
    )
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_what_cannot_be_traced_is_one_line_and_no_file(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="cannot be traced") as caught:
        export(Branch(), (torch.randn(2, 8),), tmp_path / f"m{suffix}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_operator_without_counterpart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotApplicable, match=r"no counterpart of the operator .*bessel_i1"):
        export(Bessel(), (torch.randn(2, 8),), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_other_outputs_are_an_error_and_the_old_file_stays(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_text("old")
    # what is written is another network's program
    program = module._program
    monkeypatch.setattr(module, "_program", lambda s, i, d: program(nn.Sequential(s, nn.Softplus()), i, d))
    monkeypatch.setattr(module, "silent", _refuse)
    with pytest.raises(NetwrightError, match="gives other outputs than the network"):
        export(nn.Linear(8, 3), (torch.randn(2, 8),), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def _refuse() -> None:
    raise RuntimeError("the older exporter is not asked here")


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    network, example = nn.Linear(8, 3), (torch.randn(2, 8),)
    with pytest.raises(BadInput, match=r"ends in \.onnx or \.pt2"):
        export(network, example, tmp_path / "m.txt")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(BadInput, match="it is a folder"):
        export(network, example, tmp_path / "folder.onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        export(network, example, tmp_path / "file" / "m.pt2")


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BadInput, match=r"cannot write .*No space left"):
        export(nn.Linear(8, 3), (torch.randn(2, 8),), tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", [StaticInt8(), DynamicInt8()], ids=["static", "dynamic"])
def test_an_8_bit_program_is_a_network_again(method: object, tmp_path: Path) -> None:
    """What was written for torch alone is read, written again, and written as ONNX."""
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    task = Task.from_arrays(x, torch.arange(60) % 5)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    packed = method(net, task, Budget(seconds=60))  # type: ignore[operator]
    export(packed, task.example(4), tmp_path / "a.pt2")
    again = load(tmp_path / "a.pt2")
    assert sorted(str(p.dtype) for p in again.parameters()) == sorted(
        str(p.dtype) for p in packed.parameters()
    )
    expected = packed(x[:7])
    torch.testing.assert_close(again(x[:7]), expected)
    for suffix in (".onnx", ".pt2"):
        export(again, task.example(4), tmp_path / f"b{suffix}")
    session = ort.InferenceSession(str(tmp_path / "b.onnx"))
    (got,) = session.run(None, {"input": x[:7].numpy()})
    torch.testing.assert_close(torch.from_numpy(got), expected, atol=0.05, rtol=0.05)
    torch.testing.assert_close(load(tmp_path / "b.pt2")(x[:7]), expected)


def test_log_sigmoid_is_finite_in_onnx_too(tmp_path: Path) -> None:
    x = torch.tensor([[-1e30, -200.0, -88.0, -1.0, 0.0, 1.0, 200.0, 1e30]])
    export(nn.LogSigmoid(), (x,), tmp_path / "n.onnx")
    (got,) = ort.InferenceSession(str(tmp_path / "n.onnx")).run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), nn.LogSigmoid()(x))
    torch.testing.assert_close(load(tmp_path / "n.onnx")(x), nn.LogSigmoid()(x))
