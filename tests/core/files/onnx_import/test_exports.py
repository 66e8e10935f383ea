"""Networks exported by PyTorch's two exporters, and files by other tools, come back equal and trainable."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.conftest import data_folder
from tests.core.files.onnx_import.small import assert_equal
from torch import Tensor, nn

from netwright.core.budget import Budget
from netwright.core.errors import UnsupportedOperator
from netwright.core.files.export import export
from netwright.core.files.onnx_import import read_onnx
from netwright.core.files.onnx_import.file import parse
from netwright.core.files.onnx_import.plan import Plan, read_input
from netwright.core.files.onnx_import.reader import _convert
from netwright.core.fit import Fit
from netwright.core.graph.trace import trace
from netwright.core.quiet import silent
from netwright.core.task import Task


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.left = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.right = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.cat([torch.relu(self.left(x)) + x, nn.functional.hardswish(self.right(x))], 1)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Depthwise(nn.Sequential):
    """With a squeeze-and-excitation gate, as MobileNet and EfficientNet have."""

    def __init__(self) -> None:
        super().__init__()
        self.grow = nn.Conv2d(3, 12, 1)
        self.deep = nn.Conv2d(12, 12, 3, 2, 1, groups=12)
        self.gate = nn.Sequential(nn.Conv2d(12, 3, 1), nn.SiLU(), nn.Conv2d(3, 12, 1), nn.Hardsigmoid())
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.deep(nn.functional.silu(self.grow(x))))
        return self.head((x * self.gate(x.mean((2, 3), keepdim=True))).mean((2, 3)))


class Vision(nn.Module):
    """Patches, a class token, positions, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 5, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 1, nn.LayerNorm(16), enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.blocks(x)[:, 0])


class Words(nn.Module):
    """An encoder over tokens, with the embedding that BERT-like networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(ids)).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layers = kind(6, 7, batch_first=True, bidirectional=True)
        self.head = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x)[0][:, -1])


NETWORKS = {
    "residual": (Residual, (3, 8, 8)),
    "depthwise": (Depthwise, (3, 8, 8)),
    "vision transformer": (Vision, (3, 8, 8)),
    "text transformer": (Words, None),
    "lstm": (lambda: Recurrent(nn.LSTM), (9, 6)),
    "gru": (lambda: Recurrent(nn.GRU), (9, 6)),
}


def inputs(name: str, batch: int) -> Tensor:
    shape = NETWORKS[name][1]
    return torch.randn(batch, *shape) if shape else torch.randint(0, 20, (batch, 9))


def trained_looking(name: str) -> nn.Module:
    """Every tensor its own numbers: exporters merge those that are equal, such as biases that are still zero."""
    network = NETWORKS[name][0]().eval()
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data = (
                0.3 * torch.randn_like(tensor) if tensor.dim() > 1 else 0.5 + torch.rand_like(tensor)
            )
    return network


def by_tracing(network: nn.Module, x: Tensor, path: Path, free: bool) -> None:
    axes = {"input": {0: "batch"}, "output": {0: "batch"}} if free else None
    with silent():
        torch.onnx.export(
            network, (x,), path, dynamo=False, input_names=["input"], output_names=["output"], dynamic_axes=axes,
            opset_version=14,
        )  # fmt: skip


@pytest.mark.parametrize("exporter", ["torch.export", "tracing", "tracing, one batch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip(name: str, exporter: str, tmp_path: Path) -> None:
    network, path = trained_looking(name), tmp_path / "m.onnx"
    if exporter == "torch.export":
        export(network, (inputs(name, 2),), path)
    else:
        by_tracing(network, inputs(name, 1 if "one" in exporter else 2), path, "one" not in exporter)
    back = read_onnx(path)
    x = inputs(name, 4)
    with torch.no_grad():
        torch.testing.assert_close(back(x), network(x), rtol=1e-4, atol=1e-4)
    if "one" not in exporter:
        assert_equal(path, back, x)
    assert all(p.requires_grad for p in back.parameters())
    back(x).square().sum().backward()
    assert all(p.grad is not None for p in back.parameters())
    # batch norm is folded into the convolution before it, and two biases of a GRU may be one: no more than before
    ours, theirs = (sum(p.numel() for p in net.parameters()) for net in (back, network))
    assert 0.9 * theirs < ours <= theirs
    assert trace(back, (x,)).dynamic
    if exporter == "tracing" and name in ("residual", "lstm"):
        assert export(back, (x,), tmp_path / "again.onnx").dynamic_batch


def test_it_trains(tmp_path: Path) -> None:
    network, path = trained_looking("depthwise"), tmp_path / "m.onnx"
    by_tracing(network, inputs("depthwise", 2), path, True)
    back = read_onnx(path)
    before = [p.detach().clone() for p in back.parameters()]
    rng = np.random.default_rng(0)
    task = Task.from_arrays(rng.normal(size=(40, 3, 8, 8)).astype(np.float32), rng.integers(0, 5, 40))
    Fit(epochs=1, batch_size=16)(back, task, Budget())
    assert all(not torch.equal(a, b) for a, b in zip(before, back.parameters(), strict=True))


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_networks_of_the_model_zoo(name: str) -> None:
    """Written by Caffe2, shipped with the onnx package: read for any batch, in the shapes that the file says.

    Their weights are all one number, so outputs say little; they are compared for the shape and the finiteness.
    """
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("this onnx package ships no model zoo")
    model = parse(path)
    entry = read_input(next(v for v in model.graph.input if len(v.type.tensor_type.shape.dim) == 4))
    shape = (None, *entry.dims[1:])
    network = _convert(model, [entry], Plan((shape,), True, 1, True)).eval()
    with torch.no_grad():
        output = network(torch.rand(2, *entry.dims[1:]))
    assert output.shape[:2] == (2, 1000)
    assert bool(torch.isfinite(output).all())


def real_files() -> list[str]:
    root = Path(data_root()) if data_root() else None
    if root is None:
        return []
    found = [*root.glob("small_models/*.onnx*"), *root.glob("vnncomp/**/*.onnx*")]
    return sorted(str(p.relative_to(root)) for p in found)


def data_root() -> str | None:
    import os

    return os.environ.get("NETWRIGHT_DATA")


@pytest.mark.data("small_models", "vnncomp")
@pytest.mark.parametrize("file", real_files() or ["none"])
def test_real_files(file: str, tmp_path: Path) -> None:
    """Each is read, which proves it against ONNX Runtime, or refused with the operator's name."""
    source = data_folder(Path(file).parts[0]).parent / file
    path = tmp_path / source.name.removesuffix(".gz")
    path.write_bytes(gzip.decompress(source.read_bytes()) if source.suffix == ".gz" else source.read_bytes())
    try:
        network = read_onnx(path)
    except UnsupportedOperator as error:
        refused = str(error)
        network = None
    if network is None:
        assert "silero" in file
        assert "operator If" in refused
        return
    assert sum(p.numel() for p in network.parameters()) > 0
