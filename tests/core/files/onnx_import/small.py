"""Small ONNX files built by hand, and what ONNX Runtime makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

N = helper.make_node
RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def build(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, list],
    held: dict[str, np.ndarray],
    opset: int = 17,
    outputs: tuple = ("y",),
) -> Path:
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in held.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def runtime(path: Path, *inputs: Tensor) -> list[Tensor]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {i.name: t.numpy() for i, t in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.as_tensor(a) for a in session.run(None, feed)]


def assert_equal(path: Path, network: nn.Module, *inputs: Tensor, tolerance: float = 1e-4) -> None:
    with torch.no_grad():
        got = network(*inputs)
    for a, b in zip(runtime(path, *inputs), got if isinstance(got, (tuple, list)) else [got], strict=True):
        torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)
