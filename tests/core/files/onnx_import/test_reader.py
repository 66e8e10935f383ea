"""ONNX files built by hand, and by other tools, against ONNX Runtime; what the reader makes of batches and weights."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from tests.core.files.onnx_import.small import N, assert_equal, build, runtime, weights
from torch import nn

from netwright.core.errors import NetwrightError, UnsupportedOperator
from netwright.core.files.facts import input_shapes
from netwright.core.files.onnx_import import read_onnx
from netwright.core.graph.trace import trace


def test_a_fixed_batch_of_one_becomes_free(tmp_path: Path) -> None:
    """(1, -1), heads merged with the batch as (2, 5, 4), and a learned token joined to one example."""
    held = {
        "flat": np.array([1, 5, 8]), "heads": np.array([1, 5, 2, 4]), "merged": np.array([2, 5, 4]),
        "apart": np.array([1, 2, 5, 4]), "end": np.array([1, -1]), "token": weights(1, 1, 8), "w": weights(48, 3),
    }  # fmt: skip
    nodes = [
        N("Reshape", ["x", "heads"], ["a"]), N("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3]),
        N("Reshape", ["b", "merged"], ["c"]), N("Relu", ["c"], ["d"]), N("Reshape", ["d", "apart"], ["e"]),
        N("Transpose", ["e"], ["f"], perm=[0, 2, 1, 3]), N("Reshape", ["f", "flat"], ["g"]),
        N("Concat", ["token", "g"], ["h"], axis=1), N("Reshape", ["h", "end"], ["i"]), N("MatMul", ["i", "w"], ["y"]),
    ]  # fmt: skip
    path = build(tmp_path / "m.onnx", nodes, {"x": [1, 5, 8]}, held)
    network = read_onnx(path)
    x = torch.randn(6, 5, 8)
    one_by_one = torch.cat([runtime(path, row[None])[0] for row in x])
    torch.testing.assert_close(network(x), one_by_one, rtol=1e-4, atol=1e-4)
    graph = trace(network, (x,))
    assert graph.dynamic


def test_what_mixes_the_batch_keeps_it_fixed(tmp_path: Path) -> None:
    """A mean over the batch of four cannot be done for any batch row by row; the file's own batch stays."""
    nodes = [N("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1), N("Sub", ["x", "m"], ["y"])]
    path = build(tmp_path / "m.onnx", nodes, {"x": [4, 3]}, {})
    network = read_onnx(path)
    assert_equal(path, network, torch.randn(4, 3))
    assert network.file_facts["batch"] == 4


def test_weights_are_parameters_and_layers_are_layers(tmp_path: Path) -> None:
    held = {
        "conv.weight": weights(4, 3, 3, 3), "conv.bias": weights(4), "norm.weight": weights(4), "norm.bias": weights(4),
        "norm.mean": weights(4), "norm.var": np.abs(weights(4)) + 0.1, "w": weights(4 * 36, 5), "fc.bias": weights(5),
        "shift": weights(1, 5), "three": np.float32(3.0),
    }  # fmt: skip
    nodes = [
        N("Conv", ["x", "conv.weight", "conv.bias"], ["a"]),
        N("BatchNormalization", ["a", "norm.weight", "norm.bias", "norm.mean", "norm.var"], ["b"]),
        N("Relu", ["b"], ["c"]), N("Flatten", ["c"], ["d"]), N("Dropout", ["d"], ["e"]), N("MatMul", ["e", "w"], ["f"]),
        N("Add", ["f", "fc.bias"], ["g"]), N("Mul", ["g", "three"], ["h"]), N("Add", ["h", "shift"], ["y"]),
    ]  # fmt: skip
    path = build(tmp_path / "m.onnx", nodes, {"x": ["n", 3, 8, 8]}, held)
    network = read_onnx(path)
    named = dict(network.named_modules())
    assert isinstance(named["conv"], nn.Conv2d)
    assert isinstance(named["norm"], nn.BatchNorm2d)
    assert isinstance(named["fc"], nn.Linear)
    assert named["fc"].bias is not None
    statistics = 2 * 4  # of the batch norm: buffers
    wanted = sum(a.size for a in held.values() if a.ndim) - statistics
    assert sum(p.numel() for p in network.parameters()) == wanted
    x = torch.randn(5, 3, 8, 8)
    before = network(x)
    network.train()
    assert not torch.allclose(network(x), before, atol=1e-3)  # its own batch statistics, and dropout
    network.eval()
    network(x).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())
    assert input_shapes(network) == ((3, 8, 8),)


def test_a_weight_used_twice_stays_one_parameter(tmp_path: Path) -> None:
    """An embedding whose transpose makes the outputs, as language models tie them."""
    table = weights(11, 6)
    nodes = [
        N("Gather", ["table", "ids"], ["a"]),
        N("Transpose", ["table"], ["t"]),
        N("MatMul", ["a", "t"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [numpy_helper.from_array(table, "table")],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    network = read_onnx(path)
    assert_equal(path, network, torch.randint(0, 11, (3, 4)))
    assert [tuple(p.shape) for p in network.parameters()] == [(11, 6)]
    assert isinstance(next(m for m in network.modules() if isinstance(m, nn.Embedding)), nn.Embedding)


def test_biases_that_an_exporter_merged_are_parted(tmp_path: Path) -> None:
    """Two layers whose biases are zero still share one tensor in the file; a bias with numbers is shared for good."""
    held = {"v": weights(4, 4), "w": weights(4, 4), "zero": np.zeros(4, np.float32), "b": weights(4)}
    gemms = [("x", "v", "zero"), ("y0", "w", "zero"), ("y1", "v", "b"), ("y2", "w", "b")]
    names = ["y0", "y1", "y2", "y"]
    nodes = [N("Gemm", list(given), [name]) for given, name in zip(gemms, names, strict=True)]
    network = read_onnx(build(tmp_path / "m.onnx", nodes, {"x": ["n", 4]}, held))
    first, second, third, fourth = (m for m in network.modules() if isinstance(m, nn.Linear))
    assert first.bias is not second.bias
    assert third.bias is fourth.bias
    assert first.weight is third.weight


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent(kind: str, direction: str, tmp_path: Path) -> None:
    """With an initial state that is not zero; all outputs are read."""
    d, gates, hidden = (2 if direction == "bidirectional" else 1), {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 5
    held = {
        "w": weights(d, gates * hidden, 3), "r": weights(d, gates * hidden, hidden),
        "b": weights(d, 2 * gates * hidden),
        "h0": weights(d, 1, hidden), "c0": weights(d, 1, hidden),
    }  # fmt: skip
    states = ["h0", "c0"] if kind == "LSTM" else ["h0"]
    outputs = ["y", "last", "cell"][: 3 if kind == "LSTM" else 2]
    extra = {"linear_before_reset": 1} if kind == "GRU" else {}
    nodes = [
        N(kind, ["x", "w", "r", "b", "", *states], outputs, hidden_size=hidden, direction=direction, **extra)
    ]
    path = build(tmp_path / "m.onnx", nodes, {"x": [7, 1, 3]}, held, 14, tuple(outputs))
    network = read_onnx(path)
    assert_equal(path, network, torch.randn(7, 1, 3))


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self.rows = iter([{"x": weights(2, 3, 8, 8)} for _ in range(8)])

    def get_next(self) -> dict | None:
        return next(self.rows, None)


@pytest.fixture
def convolutional(tmp_path: Path) -> Path:
    held = {"w": weights(6, 3, 3, 3), "b": weights(6), "v": weights(6, 4), "c": weights(4)}
    nodes = [
        N("Conv", ["x", "w", "b"], ["a"]), N("Relu", ["a"], ["r"]), N("GlobalAveragePool", ["r"], ["p"]),
        N("Flatten", ["p"], ["f"]), N("Gemm", ["f", "v", "c"], ["y"]),
    ]  # fmt: skip
    return build(tmp_path / "float.onnx", nodes, {"x": ["n", 3, 8, 8]}, held)


@pytest.mark.parametrize("per_channel", [False, True])
def test_quantised_by_onnx_runtime(convolutional: Path, per_channel: bool) -> None:
    """QuantizeLinear and DequantizeLinear as ONNX Runtime's own quantiser writes them; still trainable."""
    path = convolutional.with_name("int8.onnx")
    quantize_static(
        convolutional, path, Calibration(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    network = read_onnx(path)
    x = torch.from_numpy(weights(4, 3, 8, 8))
    assert_equal(path, network, x, tolerance=2e-2)
    assert any("fake_quantize" in str(n.target) for n in network.graph.nodes)
    network(x).square().sum().backward()
    grown = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not grown


def test_quantised_dynamically_by_onnx_runtime(convolutional: Path) -> None:
    path = convolutional.with_name("dynamic.onnx")
    quantize_dynamic(
        convolutional, path, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8
    )
    operators = {n.op_type for n in onnx.load(path).graph.node}
    assert "MatMulInteger" in operators
    assert_equal(path, read_onnx(path), torch.from_numpy(weights(4, 3, 8, 8)), tolerance=1e-3)


def test_copies_and_pickles(convolutional: Path) -> None:
    network = read_onnx(convolutional)
    x = torch.randn(3, 3, 8, 8)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x), network(x))
        assert input_shapes(other) == ((3, 8, 8),)
        assert next(other.parameters()) is not next(network.parameters())


def test_other_sizes_may_vary(tmp_path: Path) -> None:
    """Height and width free, and used in a shape: nothing of the sizes that it was tried with stays behind."""
    held = {"w": weights(4, 3, 3, 3), "i": np.array([0, 1]), "m": np.array([-1])}
    nodes = [
        N("Conv", ["x", "w"], ["a"], auto_pad="SAME_UPPER", strides=[2, 2]), N("Shape", ["a"], ["s"]),
        N("Gather", ["s", "i"], ["f"]), N("Concat", ["f", "m"], ["z"], axis=0), N("Reshape", ["a", "z"], ["b"]),
        N("ReduceMax", ["b"], ["y"], axes=[2], keepdims=0),
    ]  # fmt: skip
    path = build(tmp_path / "m.onnx", nodes, {"x": ["n", 3, "h", "w_"]}, held)
    network = read_onnx(path)
    for shape in ((2, 3, 9, 12), (5, 3, 21, 7)):
        assert_equal(path, network, torch.randn(shape))
    assert input_shapes(network) == ((3, None, None),)


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    nodes = [N("Relu", ["x"], ["a"]), N("NonMaxSuppression", ["a", "a"], ["y"], name="pick")]
    path = build(tmp_path / "model.onnx", nodes, {"x": [1, 4, 4]}, {})
    with pytest.raises(
        UnsupportedOperator, match=r"model\.onnx: node 'pick' uses the operator NonMaxSuppression, which Net"
    ):
        read_onnx(path)


def test_an_unknown_mode_is_named(tmp_path: Path) -> None:
    nodes = [N("Resize", ["x", "", "s"], ["y"], mode="cubic", name="Resize_12")]
    path = build(
        tmp_path / "model.onnx", nodes, {"x": ["n", 3, 4, 4]}, {"s": np.array([1, 1, 2, 2], np.float32)}
    )
    expected = (
        r"model\.onnx: node 'Resize_12' uses the operator Resize \(mode cubic\), which Netwright cannot read yet\. "
        r"Supported: linear, nearest\."
    )
    with pytest.raises(UnsupportedOperator, match=expected):
        read_onnx(path)


def test_a_network_that_contradicts_itself(tmp_path: Path) -> None:
    path = build(
        tmp_path / "m.onnx",
        [N("MatMul", ["x", "w"], ["y"], name="fc")],
        {"x": ["n", 4]},
        {"w": weights(5, 3)},
    )
    with pytest.raises(
        NetwrightError, match=r"m\.onnx: node 'fc' \(MatMul\) does not fit its inputs"
    ) as caught:
        read_onnx(path)
    assert "\n" not in str(caught.value)


def test_wrong_outputs_are_never_handed_out(convolutional: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof against ONNX Runtime notices a reader that gets an operator wrong."""
    from netwright.core.files.onnx_import import registry

    monkeypatch.setitem(registry.READERS, "Relu", lambda e, n: e.module(nn.LeakyReLU(0.1), n.operand(0)))
    with pytest.raises(NetwrightError, match="gives other outputs than ONNX Runtime"):
        read_onnx(convolutional)
