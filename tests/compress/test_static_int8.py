"""Int8 networks: on awkward networks, against ONNX Runtime's kernels and its own quantisation tools."""

import copy
import math
import pickle
from collections import Counter

import onnx
import onnxruntime as ort
import pytest
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from netwright.compress.dynamic_int8 import DynamicInt8
from netwright.compress.static_int8 import StaticInt8, _short
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.files.export import export
from netwright.core.fit import Fit
from netwright.core.measure.cost import stored_bytes
from netwright.core.measure.latency import onnx_feed, onnx_session
from netwright.core.metrics import evaluate, outputs_of
from netwright.core.network import as_tuple
from netwright.core.split import take
from netwright.core.task import Task
from netwright.core.weights.packed import PackedConv, PackedLinear, Rounding
from netwright.data import task as named_task
from netwright.models import build


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Task]:
    task = named_task("digits")
    torch.manual_seed(0)
    network = build("resnet", task.input_shape, task.outputs, depth=8, width=8)
    network.stage1 = network.stage3 = nn.Identity()  # one block with a shortcut is left: four convolutions
    network.head = nn.Linear(16, task.outputs)
    Fit(epochs=6, lr=3e-3)(network, task)
    return network, task


def kernels(path, folder) -> Counter:
    """Operators of the graph as ONNX Runtime runs it."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def run(path, inputs) -> torch.Tensor:
    session = onnx_session(path)
    return torch.as_tensor(session.run(None, onnx_feed(session, as_tuple(inputs)))[0])


class Reader(CalibrationDataReader):
    def __init__(self, split) -> None:
        self.batches = ({"input": x.numpy()} for x, _ in split.batches(64))

    def get_next(self):
        return next(self.batches, None)


def test_static_is_small_exact_in_onnx_runtime_and_runs_in_integers(digits, tmp_path) -> None:
    network, task = digits
    small = StaticInt8()(network, task, Budget())
    assert stored_bytes(small) < 0.3 * stored_bytes(network)
    assert evaluate(small, task)["accuracy"] > evaluate(network, task)["accuracy"] - 0.015
    written = export(small, task.example(8), tmp_path / "small.onnx")
    assert written.dynamic_batch
    found = kernels(tmp_path / "small.onnx", tmp_path)
    assert found["QLinearConv"] == 4
    assert found["QLinearAdd"] == 1
    assert found["QGemm"] == 1
    assert not {"Conv", "FusedConv", "Gemm", "BatchNormalization"} & found.keys()
    x = task.example(200)[0]
    ours, theirs = small(x), run(tmp_path / "small.onnx", x)
    # a sum on the border between two steps may fall either way; nearly none does
    assert ((ours - theirs).abs().amax(1) < 1e-5).float().mean() > 0.97


def test_static_beside_onnx_runtimes_own_tool(digits, tmp_path) -> None:
    network, task = digits
    export(network, task.example(2), tmp_path / "float.onnx")
    quant_pre_process(str(tmp_path / "float.onnx"), str(tmp_path / "ready.onnx"), skip_symbolic_shape=True)
    calibration = take(task.train, 256, 0)
    quantize_static(
        str(tmp_path / "ready.onnx"), str(tmp_path / "peer.onnx"), Reader(calibration),
        quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    small = StaticInt8(range="minmax", reduce_range=False)(network, task, Budget())
    export(small, task.example(2), tmp_path / "ours.onnx")
    x, y = next(iter(task.val.batches(10_000)))
    with torch.no_grad():
        truth = network(x)
    ours, peer = run(tmp_path / "ours.onnx", x), run(tmp_path / "peer.onnx", x)
    error = [(out - truth).pow(2).mean().sqrt().item() for out in (ours, peer)]
    assert error[0] < 1.3 * error[1]
    hits = [(out.argmax(1) == y).float().mean().item() for out in (ours, peer)]
    assert hits[0] > hits[1] - 0.01
    sizes = [(tmp_path / name).stat().st_size for name in ("ours.onnx", "peer.onnx")]
    assert sizes[0] < 1.2 * sizes[1]


def test_dynamic_beside_onnx_runtimes_own_tool(tmp_path) -> None:
    task = named_task("digits")
    network = build("mlp", task.input_shape, task.outputs)
    Fit(epochs=3, lr=3e-3)(network, task)
    export(network, task.example(2), tmp_path / "float.onnx")
    bare = onnx.load(tmp_path / "float.onnx")
    del bare.graph.value_info[:]  # the tool turns weights round and then trips over their old shapes
    onnx.save(bare, tmp_path / "ready.onnx")
    quantize_dynamic(
        str(tmp_path / "ready.onnx"),
        str(tmp_path / "peer.onnx"),
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    small = DynamicInt8(reduce_range=False)(network, task, Budget())
    export(small, task.example(2), tmp_path / "ours.onnx")
    found = kernels(tmp_path / "ours.onnx", tmp_path)
    assert found["DynamicQuantizeMatMul"] == sum(isinstance(m, nn.Linear) for m in network.modules())
    assert not {"Gemm", "MatMul"} & found.keys()
    x = task.example(100)[0]
    with torch.no_grad():
        assert torch.allclose(small(x), run(tmp_path / "ours.onnx", x), atol=1e-4)
        truth = network(x)
    ours, peer = small(x), run(tmp_path / "peer.onnx", x)
    assert (ours - truth).pow(2).mean() < 1.5 * (peer - truth).pow(2).mean()
    size = (tmp_path / "ours.onnx").stat().st_size
    assert size < 0.3 * (tmp_path / "float.onnx").stat().st_size


def test_dynamic_convolutions_are_float_and_unfold_once_on_loading(digits, tmp_path) -> None:
    network, task = digits
    small = DynamicInt8()(network, task, Budget())
    export(network, task.example(2), tmp_path / "float.onnx")
    export(small, task.example(2), tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size < 0.5 * (tmp_path / "float.onnx").stat().st_size
    found = kernels(tmp_path / "small.onnx", tmp_path)
    assert found["Conv"] + found["FusedConv"] == 4
    assert not {"DequantizeLinear", "Cast", "Mul"} & found.keys()


def test_in_torch_it_copies_pickles_and_keeps_names(digits) -> None:
    network, task = digits
    before = {k: v.clone() for k, v in network.state_dict().items()}
    small = StaticInt8(examples=64)(network, task, Budget())
    x = task.example(3)[0]
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert torch.equal(other(x), small(x))
    modules = dict(small.named_modules())
    assert isinstance(modules["stage2.0.conv1"], PackedConv)
    assert isinstance(modules["head"], PackedLinear)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    x = x.clone().requires_grad_()
    small(x)[:, 0].sum().backward()
    assert x.grad.abs().sum() > 0


def test_seeded_and_within_its_samples(digits) -> None:
    network, task = digits
    grids = lambda net: [(m.scale, m.zero) for m in net.modules() if isinstance(m, Rounding)]
    one, two = (StaticInt8(seed=1, examples=32)(network, task, Budget()) for _ in range(2))
    assert grids(one) == grids(two)
    other = StaticInt8(seed=2, examples=32)(network, task, Budget())
    assert grids(one) != grids(other)
    assert grids(StaticInt8(seed=2)(network, task, Budget(samples=32))) == grids(other)


def test_ranges_cut_outliers() -> None:
    x = torch.randn(300, 20)
    x[::50, 0] = 500.0  # six examples with a wild value
    task = Task.from_arrays(x, (x[:, 1] > 0).long())
    network = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    steps = {}
    for kind in ("minmax", "percentile", "mse", "entropy"):
        small = StaticInt8(range=kind)(network, task, Budget())
        steps[kind] = next(m.scale for m in small.modules() if isinstance(m, Rounding))
    assert steps["minmax"] > 500 / 256
    assert steps["percentile"] <= steps["minmax"]
    assert steps["mse"] <= steps["minmax"]
    assert steps["entropy"] <= steps["minmax"]
    with pytest.raises(BadInput, match="range"):
        StaticInt8(range="widest")(network, task, Budget())


def test_averages_of_codes_are_the_same_in_every_runtime() -> None:
    """Scales of eight significant bits make every sum exact, so the order of adding does not matter."""
    generator = torch.Generator().manual_seed(0)
    for size in (4, 7, 16):
        codes = torch.randint(0, 256, (64, 5, size, size), generator=generator)
        scale = _short(0.005 + 0.04 * torch.rand((), generator=generator).item())
        values = codes.float() * scale
        whole = codes.flatten(2).sum(2)
        exact = (whole.double() * scale / size**2).float()
        assert torch.equal(values.mean((2, 3)), exact)
        assert torch.equal(values.flatten(2).flip(2).cumsum(2)[..., -1] / size**2, exact)
    for scale in (1e-6, 0.013, 0.5, 1.0, 3.3):
        assert scale <= _short(scale) <= scale * (1 + 2**-7)
        assert (_short(scale) * 2**40 / 2 ** math.floor(math.log2(_short(scale)) + 33)).is_integer()


def test_reduced_range_fits_seven_bits(digits) -> None:
    network, task = digits
    for reduced, limit in ((True, 63), (False, 127)):
        small = StaticInt8(examples=32, reduce_range=reduced)(network, task, Budget())
        codes = torch.cat([p.flatten() for p in small.parameters() if p.dtype == torch.int8])
        assert codes.abs().max() == limit


class Twice(nn.Module):
    """One convolution at two places, whose inputs have very different ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 3)

    def forward(self, x):
        return self.head((self.conv(x) + self.conv(100 * x)).flatten(1))


def test_a_shared_layer_is_stored_once_and_rounded_at_each_place(tmp_path) -> None:
    x = torch.randn(80, 1, 8, 8)
    task = Task.from_arrays(x, torch.arange(80) % 3)
    network = Twice().eval()
    small = StaticInt8()(network, task, Budget())
    packed = [m for m in small.modules() if isinstance(m, PackedConv)]
    assert len(packed) == 2
    assert packed[0].weight is packed[1].weight
    assert not torch.equal(packed[0].bias, packed[1].bias)  # each in units of its own input
    difference = (small(x) - network(x)).norm() / network(x).norm()
    assert difference < 0.03
    export(small, (x[:4],), tmp_path / "twice.onnx")


def test_a_weight_that_is_read_as_floats_too_stays_beside_its_packed_layers(tmp_path) -> None:
    class Reader(nn.Module):
        """A table looked up and added as it is; a layer whose weight is used again, turned round."""

        def __init__(self) -> None:
            super().__init__()
            self.table, self.mix = nn.Embedding(7, 7), nn.Linear(7, 7)

        def forward(self, words):
            found = self.mix(self.table(words) + self.table.weight).relu()
            return (found @ self.mix.weight).mean(1)

    network = Reader().eval()
    words = torch.randint(0, 7, (60, 7))
    task = Task.from_arrays(words, torch.arange(60) % 3)
    for method in (StaticInt8(), DynamicInt8()):
        small = method(network, task, Budget())
        assert (small(words) - network(words)).norm() / network(words).norm() < 0.03
        export(small, (words[:4],), tmp_path / "reader.onnx")


def test_recurrent_layers_and_embeddings_hold_int8() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.lstm = nn.Embedding(200, 32), nn.LSTM(32, 64, batch_first=True)
            self.head = nn.Linear(64, 3)

        def forward(self, words):
            return self.head(self.lstm(self.table(words))[0][:, -1])

    network = Reader().eval()
    words = torch.randint(0, 200, (60, 9))
    task = Task.from_arrays(words, torch.arange(60) % 3)
    for method in (StaticInt8(), DynamicInt8()):
        small = method(network, task, Budget())
        assert stored_bytes(small) < 0.32 * stored_bytes(network)
        assert torch.allclose(small(words), network(words), atol=0.02)


def test_what_it_cannot_serve() -> None:
    x = torch.randn(40, 6)
    task = Task.from_arrays(x, torch.arange(40) % 2)

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(6))

        def forward(self, x):
            return (x * self.factor)[:, :2]

    for method in (StaticInt8(), DynamicInt8()):
        with pytest.raises(NotApplicable, match="no convolution"):
            method(Scale(), task, Budget())
        with pytest.raises(NotApplicable, match="float64"):
            method(nn.Linear(6, 2).double(), task, Budget())


@pytest.mark.parametrize("kind", ["minmax", "percentile", "mse"])
def test_every_range_keeps_the_logits(digits, kind) -> None:
    network, task = digits
    truth, _ = outputs_of(network, task.val)
    out, _ = outputs_of(StaticInt8(range=kind)(network, task, Budget()), task.val)
    assert (out - truth).norm() < 0.06 * truth.norm()
