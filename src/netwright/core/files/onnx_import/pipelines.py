"""Operators of ai.onnx.ml around a network: what skl2onnx makes of scikit-learn's preprocessing and linear models.

Texts are codes here: the place of a text in the file's vocabulary, which is every text that its operators compare with.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from netwright.core.files.onnx_import import functions
from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.registry import Node, attribute_value, reads
from netwright.core.files.onnx_import.values import Const, Results

DOMAIN = "ai.onnx.ml"
_TEXTS = ("cats_strings", "keys_strings", "keys_tensor")


def vocabulary(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Every text that the graph's operators compare with, in order."""
    found: set[str] = set()
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TEXTS:
                found.update(t for t in _listed(_plain(attribute)) if isinstance(t, str))
    return tuple(sorted(found))


def ml_attributes(node: onnx.NodeProto, words: dict[str, int]) -> dict[str, Any]:
    """A node's attributes, with codes for the texts that it compares with."""
    found = {}
    for attribute in node.attribute:
        value = _plain(attribute)
        if attribute.name in _TEXTS:
            value = [words[t] if isinstance(t, str) else t for t in _listed(value)]
        found[attribute.name] = value
    return found


def _plain(attribute: onnx.AttributeProto) -> Any:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _listed(numpy_helper.to_array(attribute.t))
    return attribute_value(attribute)


def _listed(values: Any) -> list[Any]:
    flat: Iterable[Any] = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else values
    return [v.decode(errors="replace") if isinstance(v, bytes) else v for v in flat]


def _numbers(values: Any) -> Const:
    return Const(torch.tensor(values, dtype=torch.float32))


def _float(e: Emitter, value: Any) -> Any:
    kind = value.tensor.dtype if isinstance(value, Const) else value.probes[0].dtype
    return value if kind == torch.float32 else e.method("to", value, torch.float32)


@reads("ai.onnx.ml.Scaler")
def _scaler(e: Emitter, n: Node) -> Results:
    moved = e.call(operator.sub, _float(e, n.operand(0)), _numbers(n.attribute("offset", [0.0])))
    return e.call(operator.mul, moved, _numbers(n.attribute("scale", [1.0])))


@reads("ai.onnx.ml.Normalizer")
def _normalizer(e: Emitter, n: Node) -> Results:
    order = {"MAX": torch.inf, "L1": 1, "L2": 2}[n.attribute("norm", "MAX")]
    return e.call(functions.unit_length, _float(e, n.operand(0)), order, -1)


@reads("ai.onnx.ml.Imputer")
def _imputer(e: Emitter, n: Node) -> Results:
    x = n.operand(0)
    whole = n.attribute("imputed_value_int64s")
    if whole is not None:
        fill, missing = Const(torch.tensor(whole)), n.attribute("replaced_value_int64", 0)
    else:
        fill, missing = (
            _numbers(n.attribute("imputed_value_floats")),
            n.attribute("replaced_value_float", 0.0),
        )
    gone = e.call(torch.isnan, x) if missing != missing else e.call(torch.eq, x, missing)
    return e.call(torch.where, gone, fill, x)


@reads("ai.onnx.ml.Binarizer")
def _binarizer(e: Emitter, n: Node) -> Results:
    return e.method("to", e.call(torch.gt, n.operand(0), n.attribute("threshold", 0.0)), torch.float32)


@reads("ai.onnx.ml.OneHotEncoder")
def _one_hot(e: Emitter, n: Node) -> Results:
    known = n.attribute("cats_strings") or n.attribute("cats_int64s")
    x = e.method("to", n.operand(0), torch.int64)
    return e.method(
        "to", e.call(torch.eq, e.call(torch.unsqueeze, x, -1), Const(torch.tensor(known))), torch.float32
    )


@reads("ai.onnx.ml.LabelEncoder")
def _label_encoder(e: Emitter, n: Node) -> Results:
    keys = _first(n, "keys_")
    values = _first(n, "values_")
    if keys is None or values is None or isinstance(values[0], str):
        raise n.refuse("whose keys or values are of an old form, or whose values are texts")
    kind = torch.float32 if isinstance(values[0], float) else torch.int64
    default = n.attribute("default_float", 0.0) if kind == torch.float32 else n.attribute("default_int64", -1)
    given = n.attribute("default_tensor")
    default = default if given is None else given[0]
    return e.call(
        functions.looked_up, n.operand(0), Const(torch.tensor(keys)), Const(torch.tensor(values, dtype=kind)), default
    )  # fmt: skip


def _first(n: Node, prefix: str) -> list[Any] | None:
    return next((v for k, v in n.attributes.items() if k.startswith(prefix)), None)


@reads("ai.onnx.ml.ZipMap")
def _zip_map(e: Emitter, n: Node) -> Results:
    return n.operand(0)


@reads("ai.onnx.ml.ArrayFeatureExtractor")
def _extract(e: Emitter, n: Node) -> Results:
    index = n.constant(1)
    assert index is not None
    return e.call(torch.index_select, n.operand(0), n.operand(0).dim - 1, Const(index.reshape(-1).long()))


@reads("ai.onnx.ml.FeatureVectorizer")
def _vectorizer(e: Emitter, n: Node) -> Results:
    return e.call(torch.cat, [_float(e, v) for v in n.inputs], 1)


def _linear(n: Node, rows: int) -> nn.Linear:
    weight = torch.tensor(n.attribute("coefficients"), dtype=torch.float32).reshape(rows, -1)
    layer = nn.Linear(weight.shape[1], rows)
    layer.weight = nn.Parameter(weight)
    bias = n.attribute("intercepts") or [0.0] * rows
    layer.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float32))
    return layer


def _after(e: Emitter, n: Node, scores: Any) -> Any:
    kind = n.attribute("post_transform", "NONE")
    if kind == "NONE":
        return scores
    if kind not in ("SOFTMAX", "LOGISTIC"):
        raise n.refuse(f"with post_transform {kind}", "NONE, SOFTMAX, LOGISTIC")
    return e.module(nn.Softmax(-1) if kind == "SOFTMAX" else nn.Sigmoid(), scores)


@reads("ai.onnx.ml.LinearClassifier")
def _classifier(e: Emitter, n: Node) -> Results:
    """Its second output alone: the scores (N, classes)."""
    classes = n.attribute("classlabels_strings") or n.attribute("classlabels_ints")
    rows = len(n.attribute("intercepts") or classes)
    made = _after(e, n, e.module(_linear(n, rows), _float(e, n.operand(0))))
    if rows == 1 and len(classes) == 2:
        logistic = n.attribute("post_transform", "NONE") == "LOGISTIC"
        other = e.call(operator.sub, 1.0, made) if logistic else e.call(torch.neg, made)
        made = e.call(torch.cat, [other, made], 1)
    return None, made


@reads("ai.onnx.ml.LinearRegressor")
def _regressor(e: Emitter, n: Node) -> Results:
    return _after(e, n, e.module(_linear(n, n.attribute("targets", 1)), _float(e, n.operand(0))))
