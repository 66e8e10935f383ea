"""If: the branch that constants or sizes choose is read as if it stood there; what data decide is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.core.files.onnx_import.small import N, assert_equal, build, weights

from netwright.core.errors import UnsupportedOperator
from netwright.core.files.export import export
from netwright.core.files.onnx_import import read_onnx
from netwright.core.graph import groups, trace


def branch(nodes: list[Any], held: dict[str, np.ndarray] | None = None, output: str = "out") -> Any:
    """A subgraph without inputs of its own."""
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph(
        nodes, "b", [], [value], [numpy_helper.from_array(a, n) for n, a in (held or {}).items()]
    )


def either(condition: str, yes: Any, no: Any, output: str = "y") -> Any:
    return N("If", [condition], [output], then_branch=yes, else_branch=no)


# both branches hold a weight of the same name, and read what is around them
FIRST = branch([N("MatMul", ["x", "w"], ["h"]), N("Add", ["h", "b"], ["out"])], {"w": weights(6, 6)})
SECOND = branch([N("MatMul", ["x", "w"], ["h"]), N("Relu", ["h"], ["out"])], {"w": weights(6, 6)})


@pytest.mark.parametrize("flag", [True, False])
def test_a_constant_chooses(flag: bool, tmp_path: Path) -> None:
    path = build(
        tmp_path / "n.onnx", [either("flag", FIRST, SECOND)], {"x": ["batch", 6]},
        {"flag": np.array(flag), "b": weights(6)},
    )  # fmt: skip
    network = read_onnx(path)
    for rows in (1, 2, 7):
        assert_equal(path, network, torch.randn(rows, 6))
    assert sum(p.numel() for p in network.parameters()) == (42 if flag else 36)


@pytest.mark.parametrize(("length", "axis"), [(6, 1), (1, 1)])
def test_a_size_chooses(length: int, axis: int, tmp_path: Path) -> None:
    """As torch wrote operators whose form hangs on a size that it did not know."""
    nodes = [
        N("Shape", ["x"], ["shape"]), N("Gather", ["shape", "axis"], ["size"], axis=0),
        N("Equal", ["size", "one"], ["flag"]),
        either("flag", branch([N("ReduceSum", ["x", "axes"], ["out"], keepdims=0)]),
               branch([N("Identity", ["x"], ["out"])]), "z"),
        N("Relu", ["z"], ["y"]),
    ]  # fmt: skip
    held = {"axis": np.array(axis), "one": np.array(1), "axes": np.array([axis])}
    path = build(tmp_path / "n.onnx", nodes, {"x": ["batch", length, 5]}, held)
    network = read_onnx(path)
    assert network(torch.randn(3, length, 5)).shape == ((3, 6, 5) if length == 6 else (3, 5))
    for rows in (1, 4):
        assert_equal(path, network, torch.randn(rows, length, 5))


def test_two_of_them_one_inside_the_other_keep_their_weights_apart(tmp_path: Path) -> None:
    inside = branch(
        [N("MatMul", ["g", "w"], ["k"]), either("off", branch([N("Neg", ["k"], ["out"])]),
         branch([N("MatMul", ["k", "w"], ["out"])], {"w": weights(6, 6)}), "out")], {"w": weights(6, 6)},
    )  # fmt: skip
    nodes = [
        N("Not", ["on"], ["off"]), either("on", FIRST, SECOND, "g"),
        either("on", inside, branch([N("Abs", ["g"], ["out"])]), "m"), either("off", FIRST, SECOND, "s"),
        N("Add", ["m", "s"], ["y"]),
    ]  # fmt: skip
    path = build(tmp_path / "n.onnx", nodes, {"x": ["batch", 6]}, {"on": np.array(True), "b": weights(6)})
    network = read_onnx(path)
    assert_equal(path, network, torch.randn(4, 6))
    assert sum(p.numel() for p in network.parameters()) == 6 + 4 * 36
    assert groups(trace(network, torch.randn(2, 6)))  # a plain network like any other
    export(network, (torch.randn(2, 6),), tmp_path / "again.onnx")
    export(network, (torch.randn(2, 6),), tmp_path / "again.pt2")


def test_operators_of_the_branch_that_is_not_taken_need_not_be_known(tmp_path: Path) -> None:
    strange = branch([N("Multinomial", ["x"], ["k"], sample_size=1), N("Cast", ["k"], ["out"], to=1)])
    path = build(
        tmp_path / "n.onnx", [either("flag", strange, SECOND)], {"x": ["batch", 6]}, {"flag": np.array(False)}
    )
    assert_equal(path, read_onnx(path), torch.randn(4, 6))
    path = build(
        tmp_path / "m.onnx", [either("flag", strange, SECOND)], {"x": ["batch", 6]}, {"flag": np.array(True)}
    )
    with pytest.raises(UnsupportedOperator, match="Multinomial"):
        read_onnx(path)


def test_what_data_decide_is_refused(tmp_path: Path) -> None:
    nodes = [
        N("ReduceSum", ["x"], ["total"], keepdims=0), N("Greater", ["total", "zero"], ["flag"]),
        either("flag", FIRST, SECOND),
    ]  # fmt: skip
    held = {"zero": np.array(0, dtype=np.float32), "b": weights(6)}
    path = build(tmp_path / "n.onnx", nodes, {"x": ["batch", 6]}, held)
    with pytest.raises(
        UnsupportedOperator, match=r"n\.onnx.*If \(with a condition that is computed from data\)"
    ):
        read_onnx(path)


def test_what_the_batch_decides_is_refused(tmp_path: Path) -> None:
    nodes = [
        N("Shape", ["x"], ["shape"]), N("Gather", ["shape", "axis"], ["size"], axis=0),
        N("Equal", ["size", "one"], ["flag"]), either("flag", FIRST, SECOND),
    ]  # fmt: skip
    held = {"axis": np.array(0), "one": np.array(1), "b": weights(6)}
    path = build(tmp_path / "n.onnx", nodes, {"x": ["batch", 6]}, held)
    with pytest.raises(UnsupportedOperator, match="depends on the batch size"):
        read_onnx(path)
    path = build(tmp_path / "m.onnx", nodes, {"x": [1, 6]}, held)  # a file for one row: it is decided
    assert_equal(path, read_onnx(path), torch.randn(1, 6))


def test_loops_are_refused(tmp_path: Path) -> None:
    body = helper.make_graph(
        [N("Identity", ["c"], ["c2"]), N("Relu", ["s"], ["s2"])], "b",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", TensorProto.INT64), ("c", TensorProto.BOOL))]
        + [helper.make_tensor_value_info("s", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
         helper.make_tensor_value_info("s2", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [N("Loop", ["times", "go", "x"], ["y"], body=body)]
    held = {"times": np.array(3), "go": np.array(True)}
    path = build(tmp_path / "n.onnx", nodes, {"x": ["batch", 6]}, held)
    with pytest.raises(UnsupportedOperator, match="Loop"):
        read_onnx(path)
