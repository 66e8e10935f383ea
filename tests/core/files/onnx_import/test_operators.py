"""Every operator that we read against the reference outputs that ship with the onnx package."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx.backend.test.case.node import collect_testcases

from netwright.core.errors import UnsupportedOperator
from netwright.core.files.onnx_import.plan import Plan, read_input
from netwright.core.files.onnx_import.reader import _convert
from netwright.core.files.onnx_import.registry import READERS

FAMILIES = {
    "convolution and pooling": "Conv ConvTranspose MaxPool AveragePool GlobalAveragePool GlobalMaxPool LRN",
    "arithmetic": "Add Sub Mul Div Pow Mod Neg Abs Sqrt Exp Log Reciprocal Min Max Sum Mean Clip",
    "functions": "Erf Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Sign Floor Ceil Round Det",
    "activations": "Relu LeakyRelu PRelu Sigmoid HardSigmoid HardSwish Tanh Gelu Elu Selu Celu Softplus Softsign "
    "Mish ThresholdedRelu Shrink Softmax LogSoftmax Hardmax Dropout Identity",
    "logic": "Not And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual Where IsNaN IsInf Cast CastLike "
    "BitwiseNot BitwiseAnd BitwiseOr BitwiseXor",
    "products and norms": "Gemm MatMul Einsum BatchNormalization LayerNormalization InstanceNormalization "
    "GroupNormalization RMSNormalization LpNormalization MeanVarianceNormalization",
    "shapes": "Reshape Flatten Transpose Squeeze Unsqueeze Concat Split Slice Shape Size Expand Tile Pad Trilu "
    "EyeLike DepthToSpace SpaceToDepth Constant ConstantOfShape Range",
    "indices": "Gather GatherElements GatherND ScatterND ScatterElements Scatter OneHot",
    "reductions": "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare "
    "ReduceLogSum ReduceLogSumExp ArgMax ArgMin TopK CumSum",
    "resizing": "Resize Upsample",
    "recurrent": "LSTM GRU RNN",
    "quantised": "QuantizeLinear DequantizeLinear DynamicQuantizeLinear MatMulInteger ConvInteger",
}
# torch has no arithmetic on these types; a largest value of nothing is an error in torch
BEYOND_TORCH = {np.dtype(t) for t in (np.uint16, np.uint32, np.uint64)}
OTHERWISE = {
    "test_reduce_max_empty_set", "test_reduce_max_empty_set_bool", "test_reduce_min_empty_set",
    # the reference divides by a size that is no integer here; ONNX Runtime, like us, by the size of the output
    "test_resize_downsample_scales_linear_align_corners",
    "test_identity_sequence", "test_identity_opt",  # no tensors
}  # fmt: skip


FIRST_OUTPUT = {
    "LayerNormalization",
    "Dropout",
    "MaxPool",
    "BatchNormalization",
}  # the others are for training


@cache
def cases() -> dict[str, list]:
    """By the operator of the (one) node that is tested, those whose nodes we all know."""
    found: dict[str, list] = {}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = collect_testcases(None)
    for case in every:
        nodes = case.model.graph.node
        known = all(n.op_type in READERS and n.domain in ("", "ai.onnx") for n in nodes)
        if known and case.name not in OTHERWISE and len(nodes) == 1:
            found.setdefault(nodes[0].op_type, []).append(case)
    return found


def tensors(arrays: list) -> list[torch.Tensor] | None:
    """As torch tensors, if torch computes with these types."""
    made = []
    for value in arrays:
        array = (
            onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
        )
        if array.dtype in BEYOND_TORCH:
            return None
        try:
            made.append(torch.from_numpy(np.array(array)))
        except TypeError:
            return None
    return made


def with_constants(model: onnx.ModelProto, given: list[torch.Tensor], kept: int) -> onnx.ModelProto:
    """The same network with all inputs but the first `kept` given as constants of the file's."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    names = [v.name for v in model.graph.input]
    for name, tensor in zip(names[kept:], given[kept:], strict=True):
        changed.graph.initializer.append(onnx.numpy_helper.from_array(tensor.numpy(), name))
    del changed.graph.input[kept:]
    return changed


def first_output(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[1:]
    return changed


def outcome(model: onnx.ModelProto, given: list[torch.Tensor], expected: list[torch.Tensor]) -> str:
    """'equal' or 'refused'; anything else fails."""
    inputs = [read_input(v) for v in model.graph.input]
    shapes = tuple(tuple(t.shape) for t in given)
    try:
        network = _convert(model, inputs, Plan(shapes, False, 1, True))
    except UnsupportedOperator:
        return "refused"
    with torch.no_grad():
        got = network(*given)
    for a, b in zip(expected, got if isinstance(got, (tuple, list)) else [got], strict=False):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        loose = b.dtype == torch.float16
        torch.testing.assert_close(
            b, a, rtol=1e-2 if loose else 5e-4, atol=1e-3 if loose else 1e-5, equal_nan=True
        )
    return "equal"


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_outputs(family: str) -> None:
    count: dict[str, Counter[str]] = {}
    for operator in FAMILIES[family].split():
        for case in cases().get(operator, []):
            arrays, expected = case.data_sets[0]
            given, results = tensors(arrays), tensors(expected)
            if given is None or results is None:
                continue
            seen = count.setdefault(operator, Counter())
            kept = 0 if operator in ("Range", "ConstantOfShape") else 1
            model = first_output(case.model) if operator in FIRST_OUTPUT else case.model
            try:
                seen[outcome(model, given, results)] += 1
                if len(given) > kept:
                    fixed = with_constants(model, given, kept)
                    seen[outcome(fixed, given[:kept], results)] += 1
            except Exception as error:
                raise AssertionError(f"{case.name}: {error}") from error
    # ONNX's default GRU resets before the product; torch has none, so it is refused (the other kind: test_exports)
    wrong = [op for op, seen in count.items() if not seen["equal"] and op != "GRU"]
    assert not wrong, f"never equal: {wrong}"
    assert sum(seen["equal"] for seen in count.values()) >= 3
    assert set(count) >= set(FAMILIES[family].split()) - WITHOUT_CASES


# no test of one node ships for these; they stand in test_reader.py
WITHOUT_CASES = {"Upsample", "Scatter", "ConstantOfShape", "EyeLike", "Constant", "Identity"}


def test_every_operator_has_a_family() -> None:
    own = {name for name in READERS if not name.startswith("ai.onnx.ml.")}  # those: test_pipelines.py
    assert own == set(" ".join(FAMILIES.values()).split())
