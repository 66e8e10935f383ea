"""The forms in which operators come (attributes, operator sets, sizes that vary), against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from tests.core.files.onnx_import.small import N, assert_equal, build, weights

from netwright.core.files.onnx_import import read_onnx

FORMS: dict[str, tuple[list, dict, list, int]] = {
    "same upper": (
        [N("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])],
        {"w": weights(5, 3, 3, 3)},
        [3, 7, 8],
        11,
    ),
    "same lower": (
        [N("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[3, 2])],
        {"w": weights(5, 3, 4, 2)},
        [3, 7, 8],
        11,
    ),
    "valid": ([N("Conv", ["x", "w"], ["y"], auto_pad="VALID")], {"w": weights(5, 3, 3, 3)}, [3, 7, 8], 11),
    "unequal pads": (
        [N("Conv", ["x", "w"], ["y"], pads=[0, 1, 2, 3])],
        {"w": weights(5, 3, 3, 3)},
        [3, 7, 8],
        11,
    ),
    "depthwise": (
        [N("Conv", ["x", "w", "b"], ["y"], group=6, pads=[1, 1, 1, 1])],
        {"w": weights(12, 1, 3, 3), "b": weights(12)},
        [6, 7, 8],
        11,
    ),
    "dilated, one dimension": (
        [N("Conv", ["x", "w"], ["y"], dilations=[3], strides=[2])],
        {"w": weights(4, 3, 3)},
        [3, 19],
        11,
    ),
    "three dimensions": (
        [N("Conv", ["x", "w"], ["y"], pads=[1] * 6)],
        {"w": weights(4, 2, 3, 3, 3)},
        [2, 5, 6, 7],
        11,
    ),
    "transposed": (
        [
            N(
                "ConvTranspose",
                ["x", "w", "b"],
                ["y"],
                strides=[2, 3],
                pads=[1, 0, 0, 2],
                output_padding=[1, 0],
            )
        ],
        {"w": weights(3, 4, 3, 3), "b": weights(4)},
        [3, 5, 6],
        11,
    ),
    "transposed, grouped": (
        [N("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=2, auto_pad="SAME_UPPER")],
        {"w": weights(4, 3, 3, 3)},
        [4, 5, 6],
        11,
    ),
    "largest, ceil": (
        [N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        {},
        [3, 8, 9],
        12,
    ),
    "largest, unequal, ceil": (
        [N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 2, 1], ceil_mode=1)],
        {},
        [3, 8, 9],
        12,
    ),
    "largest, unequal": (
        [N("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 2], pads=[0, 1, 2, 0])],
        {},
        [3, 8, 9],
        12,
    ),
    "largest, same": (
        [N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
        {},
        [3, 8, 9],
        12,
    ),
    "largest, dilated": (
        [N("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 3])],
        {},
        [3, 8, 9],
        12,
    ),
    "average": ([N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}, [3, 8, 9], 11),
    "average, padding counts": (
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        {},
        [3, 8, 9],
        11,
    ),
    "average, unequal": (
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[0, 1, 2, 1], strides=[2, 2])],
        {},
        [3, 8, 9],
        11,
    ),
    "average, unequal counts": (
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[0, 1, 2, 1], count_include_pad=1)],
        {},
        [3, 8, 9],
        11,
    ),
    "average, same": (
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2])],
        {},
        [3, 8, 9],
        11,
    ),
    "softmax of old": ([N("Softmax", ["x"], ["y"], axis=1)], {}, [3, 4, 5], 11),
    "log-softmax of new": ([N("LogSoftmax", ["x"], ["y"], axis=1)], {}, [3, 4, 5], 13),
    "clip of old": ([N("Clip", ["x"], ["y"], min=-0.5, max=0.25)], {}, [6], 6),
    "clip at six": (
        [N("Clip", ["x", "low", "high"], ["y"])],
        {"low": np.float32(0), "high": np.float32(6)},
        [6],
        13,
    ),
    "pad of old": ([N("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5)], {}, [2, 3, 4], 2),
    "pad by reflection": (
        [N("Pad", ["x", "p"], ["y"], mode="reflect")],
        {"p": np.array([0, 1, 2, 0, 0, 1, 1, 3])},
        [2, 3, 4],
        13,
    ),
    "pad by edges": (
        [N("Pad", ["x", "p"], ["y"], mode="edge")],
        {"p": np.array([0, 1, 2, 0, 0, 1, 1, 3])},
        [2, 3, 4],
        13,
    ),
    "upsample of old": (
        [N("Upsample", ["x", "s"], ["y"], mode="nearest")],
        {"s": np.array([1, 1, 2, 3], np.float32)},
        [2, 3, 4],
        9,
    ),
    "upsample linear": (
        [N("Upsample", ["x", "s"], ["y"], mode="linear")],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        [2, 3, 4],
        9,
    ),
    "split of old": ([N("Split", ["x"], ["a", "y"], axis=1, split=[2, 4])], {}, [6, 3], 11),
    "squeeze of old": ([N("Squeeze", ["x"], ["y"], axes=[2])], {}, [6, 1, 3], 11),
    "sum of old": ([N("ReduceSum", ["x"], ["y"], axes=[1], keepdims=0)], {}, [6, 3], 11),
    "slice of old": (
        [N("Slice", ["x"], ["y"], axes=[1, 2], starts=[1, -2], ends=[5, 9223372036854775807])],
        {},
        [6, 3],
        9,
    ),
    "slice backwards": (
        [N("Slice", ["x", "s", "e", "a", "t"], ["y"])],
        {"s": np.array([-1]), "e": np.array([-6]), "a": np.array([1]), "t": np.array([-2])},
        [6, 3],
        13,
    ),
    "slope per channel": ([N("PRelu", ["x", "w"], ["y"])], {"w": weights(3, 1, 1)}, [3, 4, 5], 16),
    "sizes times": (
        [
            N("Shape", ["x"], ["s"]),
            N("Cast", ["s"], ["f"], to=1),
            N("Gather", ["f", "i"], ["h"]),
            N("Mul", ["h", "k"], ["d"]),
            N("Floor", ["d"], ["g"]),
            N("Cast", ["g"], ["o"], to=7),
            N("Gather", ["s", "j"], ["front"]),
            N("Concat", ["front", "o"], ["z"], axis=0),
            N(
                "Resize",
                ["x", "", "", "z"],
                ["y"],
                mode="linear",
                coordinate_transformation_mode="align_corners",
            ),
        ],
        {"i": np.array([2, 3]), "j": np.array([0, 1]), "k": np.float32(1.5)},
        [2, 6, 4],
        13,
    ),
    "nearest, by half pixels": (
        [
            N(
                "Resize",
                ["x", "", "s"],
                ["y"],
                coordinate_transformation_mode="half_pixel",
                nearest_mode="round_prefer_floor",
            )
        ],
        {"s": np.array([1, 1, 2, 1.5], np.float32)},
        [2, 6, 4],
        13,
    ),
    "attention mask": (
        [
            N("Shape", ["x"], ["s"]),
            N("ConstantOfShape", ["s"], ["ones"], value=helper.make_tensor("v", 1, [1], [1.0])),
            N("Trilu", ["ones"], ["y0"], upper=0),
            N("Mul", ["y0", "x"], ["y"]),
        ],
        {},
        [4, 4],
        14,
    ),
    "expanded": (
        [N("Shape", ["x"], ["s"]), N("Expand", ["w", "s"], ["e"]), N("Add", ["x", "e"], ["y"])],
        {"w": weights(1, 4)},
        [3, 4],
        13,
    ),
    "gemm as it comes": (
        [N("Gemm", ["x", "w", "c"], ["y"], alpha=0.5, beta=2.0, transB=1)],
        {"w": weights(5, 6), "c": weights(1, 5)},
        [6],
        13,
    ),
    "norm by groups": (
        [N("GroupNormalization", ["x", "w", "b"], ["y"], num_groups=2)],
        {"w": weights(4), "b": weights(4)},
        [4, 5, 6],
        21,
    ),
    "norm by instance": (
        [N("InstanceNormalization", ["x", "w", "b"], ["y"])],
        {"w": weights(4), "b": weights(4)},
        [4, 5, 6],
        13,
    ),
    "one of two states": (
        [
            N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            N("ReduceMax", ["t"], ["c"], axes=[0]),
            N("LSTM", ["t", "w", "r", "", "", "", "c"], ["", "h"], hidden_size=4),
            N("Transpose", ["h"], ["y"], perm=[1, 0, 2]),
        ],
        {"w": weights(1, 16, 4), "r": weights(1, 16, 4)},
        [6, 4],
        14,
    ),
    "eye": (
        [N("EyeLike", ["w"], ["e"], k=1), N("MatMul", ["x", "e"], ["y"])],
        {"w": weights(4, 6)},
        [3, 4],
        13,
    ),
    "scattered": (
        [N("Scatter", ["x", "i", "u"], ["y"], axis=1)],
        {"i": np.array([[1, 0]] * 3), "u": weights(3, 2)},
        [4],
        10,
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_equals_onnx_runtime(name: str, tmp_path: Path) -> None:
    nodes, held, shape, opset = FORMS[name]
    batch = 3
    path = build(tmp_path / "m.onnx", nodes, {"x": ["batch", *shape]}, held, opset)
    network = read_onnx(path)
    assert_equal(path, network, torch.randn(batch, *shape))
    if name != "scattered":  # its updates are for three examples
        assert_equal(path, network, torch.randn(7, *shape))
