"""The tools that wrote the strangers' files: PyTorch's three exporters, safetensors, skl2onnx, onnx.helper.

Needs torch, onnx, onnxscript, safetensors (netwright's own dependencies), and skl2onnx for the networks of
scikit-learn (pip install skl2onnx).
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data import Absent


def dynamo(network: nn.Module, inputs: Mapping[str, np.ndarray], path: Path) -> str:
    """torch.onnx.export by torch.export, which names inputs as it is told and leaves the batch free."""
    args = _two(inputs)
    free = tuple({0: torch.export.Dim("batch", min=1)} for _ in args)
    with _silent():
        program = torch.onnx.export(
            network, args, dynamo=True, input_names=list(inputs), output_names=["scores"], dynamic_shapes=free
        )
        program.save(str(path))
    return str(path)


def torchscript(network: nn.Module, inputs: Mapping[str, np.ndarray], path: Path, opset: int = 17) -> str:
    """torch.onnx.export by tracing, PyTorch's exporter of old."""
    names = list(inputs)
    with _silent():
        torch.onnx.export(
            network, _two(inputs), str(path), dynamo=False, opset_version=opset, input_names=names,
            output_names=["output"], dynamic_axes={n: {0: "N"} for n in [*names, "output"]},
        )  # fmt: skip
    return str(path)


def pt2(network: nn.Module, inputs: Mapping[str, np.ndarray], path: Path) -> str:
    args = _two(inputs)
    free = tuple({0: torch.export.Dim("batch", min=1)} for _ in args)
    with _silent():
        torch.export.save(torch.export.export(network, args, dynamic_shapes=free), str(path))
    return str(path)


def code(network: nn.Module, function: str, where: Path) -> tuple[str, str]:
    """'net.py:function' and the file of its weights."""
    from safetensors.torch import save_file

    shutil.copy(Path(__file__).with_name("modules.py"), where / "net.py")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, str(where / "net.safetensors"))
    return f"{where / 'net.py'}:{function}", str(where / "net.safetensors")


def sklearn(model: Any, types: Sequence[tuple[str, str, int]], path: Path, zipmap: bool = True) -> str:
    """A fitted scikit-learn model or pipeline. types: (input, 'float', 'double' or 'text', width) for each input."""
    try:
        from skl2onnx import to_onnx
        from skl2onnx.common import data_types
    except ImportError:
        raise Absent("skl2onnx is not installed") from None
    known = {"float": "FloatTensorType", "double": "DoubleTensorType", "text": "StringTensorType"}
    initial = [(name, getattr(data_types, known[kind])([None, width])) for name, kind, width in types]
    classifier = hasattr(model, "predict_proba")
    with _silent():
        made = to_onnx(
            model, initial_types=initial, target_opset=17, options={"zipmap": zipmap} if classifier else None
        )
    path.write_bytes(made.SerializeToString())
    return str(path)


def by_hand_nhwc(network: nn.Sequential, path: Path) -> str:
    """`modules.cnn` as a graph of onnx.helper, opset 9, that takes (N, 28, 28, 1): Transpose, then Conv (batch norm
    folded in by hand), ReLU, ..., GlobalAveragePool, Flatten, Gemm."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2])]
    weights, last = [], "t"
    for i, block in enumerate(network[:-1]):
        convolution, norm = block[0], block[1]
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        weights += [
            numpy_helper.from_array(
                (convolution.weight * factor[:, None, None, None]).detach().numpy(), f"w{i}"
            ),
            numpy_helper.from_array((norm.bias - norm.running_mean * factor).detach().numpy(), f"b{i}"),
        ]
        nodes += [
            helper.make_node(
                "Conv", [last, f"w{i}", f"b{i}"], [f"c{i}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                strides=list(convolution.stride),
            ),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
        ]  # fmt: skip
        last = f"r{i}"
    linear = network[-1][2]
    weights += [
        numpy_helper.from_array(linear.weight.detach().numpy(), "w"),
        numpy_helper.from_array(linear.bias.detach().numpy(), "b"),
    ]
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes, "hand", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 28, 28, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", linear.out_features])], weights,
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4), str(path))
    return str(path)


def by_hand_old(network: nn.Sequential, path: Path) -> str:
    """An MLP as Keras's converters used to write it: opset 7, MatMul and Add, a Softmax at the end."""
    from onnx import TensorProto, helper, numpy_helper, save

    layers = [m for m in network if isinstance(m, nn.Linear)]
    nodes, weights, last = [], [], "dense_input"
    for i, layer in enumerate(layers):
        weights += [
            numpy_helper.from_array(layer.weight.detach().numpy().T.copy(), f"dense_{i}/kernel"),
            numpy_helper.from_array(layer.bias.detach().numpy(), f"dense_{i}/bias"),
        ]
        nodes.append(helper.make_node("MatMul", [last, f"dense_{i}/kernel"], [f"m{i}"]))
        nodes.append(helper.make_node("Add", [f"m{i}", f"dense_{i}/bias"], [f"a{i}"]))
        last = f"a{i}"
        if i < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [last], [f"r{i}"]))
            last = f"r{i}"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "old", [value("dense_input", TensorProto.FLOAT, ["N", layers[0].in_features])],
        [value("probabilities", TensorProto.FLOAT, ["N", layers[-1].out_features])], weights,
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 7)], ir_version=4), str(path))
    return str(path)


def _two(inputs: Mapping[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
    """Two rows of each input: with one, the exporters would take the batch for a constant."""
    return tuple(torch.from_numpy(np.ascontiguousarray(x[:2])) for x in inputs.values())


@contextlib.contextmanager
def _silent() -> Any:
    """The exporters print and warn; nothing of it matters here."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
