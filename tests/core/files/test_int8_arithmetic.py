"""8-bit programs written in torch's operators, held against ONNX Runtime's integer kernels: equal to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from netwright.compress.static_int8 import StaticInt8
from netwright.core.budget import Budget
from netwright.core.files import int8_arithmetic
from netwright.core.files.export import export
from netwright.core.task import Task


class Awkward(nn.Module):
    """Residual sums with and without ReLU, groups, strides, concatenation, a bound that is no ReLU, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.point = nn.Conv2d(8, 8, 1)
        self.down = nn.Conv2d(8, 12, 3, stride=2)
        self.side = nn.Conv2d(8, 4, 3, stride=2, padding="valid")
        self.hidden = nn.Linear(16, 40)
        self.middle = nn.Linear(40, 40)
        self.last = nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = (x + self.point(self.depth(x).clamp(0, 6))).relu()
        x = torch.cat([self.down(x), self.side(x)], 1)
        x = nn.functional.max_pool2d(x, 2)
        x = self.hidden(x.flatten(1)).relu()
        return self.last(self.middle(x))


class Lines(nn.Module):
    """Convolutions along one axis and a sum that nothing cuts off."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, 16, 5, padding=2)
        self.second = nn.Conv1d(16, 16, 3, padding=1, dilation=1)
        self.last = nn.Linear(16 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(2))
        return self.last((x + self.second(x.relu())).flatten(1))


class Averaging(nn.Module):
    """Averages over all positions that layers read: in a gate, and behind an activation that stays float."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 13, 3, padding=1)
        self.squeeze, self.widen = nn.Conv2d(13, 5, 1), nn.Conv2d(5, 13, 1)
        self.second, self.last = nn.Conv2d(13, 21, 1), nn.Linear(21, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = x * self.widen(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.last(nn.functional.hardswish(self.second(x)).mean((2, 3)))


def quantised(network: nn.Module, size: int, count: int = 1500) -> tuple[nn.Module, Tensor]:
    """With inputs that are multiples of 1/255, which fall on borders between steps as images do."""
    x = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0)) / 255
    task = Task.from_arrays(x, torch.arange(count) % 5)
    return StaticInt8(reduce_range=False)(network.eval(), task, Budget()), x


def in_onnx_runtime(path: Path, x: Tensor) -> Tensor:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


@pytest.mark.parametrize("kind", [Awkward, Lines, Averaging])
def test_both_files_give_the_same_bits(kind, tmp_path):
    torch.manual_seed(0)
    small, x = quantised(kind(), 8)
    for suffix in (".onnx", ".pt2"):
        export(small, (x[:4],), tmp_path / f"m{suffix}")
    expected = in_onnx_runtime(tmp_path / "m.onnx", x)
    got = torch.export.load(tmp_path / "m.pt2").module()(x)
    assert torch.equal(got, expected)
    with torch.no_grad():  # the network itself sums in float: equal but for single steps of a grid
        assert ((small(x) - expected).abs().amax(1) > 1e-4 * expected.abs().max()).float().mean() < 0.05


def test_sums_beyond_what_float32_counts_are_exact(tmp_path):
    """3,000 products of large codes, and biases of millions of steps."""
    torch.manual_seed(0)
    layer = nn.Linear(3000, 64)
    with torch.no_grad():
        layer.weight.copy_(torch.sign(layer.weight) * 0.02 * (1 + 0.02 * torch.rand_like(layer.weight)))
        layer.weight[0] *= 1e-6  # a channel that is all bias
    x = torch.rand(300, 3000) * 4
    task = Task.from_arrays(x, torch.arange(300) % 5)
    net = nn.Sequential(layer, nn.ReLU(), nn.Linear(64, 5))
    small = StaticInt8(reduce_range=False)(net.eval(), task, Budget())
    for suffix in (".onnx", ".pt2"):
        export(small, (x[:4],), tmp_path / f"m{suffix}")
    got = torch.export.load(tmp_path / "m.pt2").module()(x)
    assert torch.equal(got, in_onnx_runtime(tmp_path / "m.onnx", x))


@pytest.mark.parametrize("seed", range(6))
def test_sums_of_codes_equal_onnx_runtime_for_every_pair(seed):
    random = np.random.default_rng(seed)
    scales = [float(np.float32(v)) for v in random.uniform(0.005, 0.05, 3)]
    zeros = [int(v) for v in random.integers(0, 200, 3)]
    names = ["sa", "sb", "sc", "za", "zb", "zc"]
    constants = [
        helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in zip(names, scales, strict=False)
    ]
    constants += [
        helper.make_tensor(n, TensorProto.UINT8, [], [v]) for n, v in zip(names[3:], zeros, strict=True)
    ]
    node = helper.make_node(
        "QLinearAdd", ["a", "sa", "za", "b", "sb", "zb", "sc", "zc"], ["c"], domain="com.microsoft"
    )
    ends = [helper.make_tensor_value_info(n, TensorProto.UINT8, [65536]) for n in "abc"]
    graph = helper.make_graph([node], "sum", ends[:2], ends[2:], constants)
    sets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=sets, ir_version=9)
    a, b = (
        t.flatten().to(torch.uint8)
        for t in torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = torch.from_numpy(session.run(None, {"a": a.numpy(), "b": b.numpy()})[0])
    grids = list(zip(scales, zeros, strict=True))
    got = int8_arithmetic._sum_codes(a, grids[0], b, grids[1], (*grids[2], 0, 255, torch.uint8))
    assert torch.equal(got, expected)
