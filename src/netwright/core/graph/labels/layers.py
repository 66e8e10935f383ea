"""How labels pass layers with weights: which axis of which weight holds the units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from netwright.core.graph.ir import Node
from netwright.core.graph.labels.analysis import Analysis
from netwright.core.graph.labels.classes import FIXED
from netwright.core.graph.labels.contraction import addmm, attention, einsum, linear, matmul
from netwright.core.graph.labels.rules import Rule, biased, join, kind, results
from netwright.core.graph.labels.values import Held, flat


def convolution(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """conv1d to 3d, transposed too, and their decomposed form aten.convolution."""
    name = kind(node)
    x, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    if name == "convolution":
        transposed, groups = args[6], args[8]
    else:
        transposed = name.startswith("conv_transpose")
        groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    if not isinstance(weight, Held):
        return analysis.unknown(node, args, kwargs, "has a computed weight")
    labels, because = analysis.labels(x), analysis.because(node, "mixes positions")
    n = len(weight.shape) - 2
    channel = labels.dim() - n - 1
    others = [d for d in range(labels.dim()) if d != channel]
    inner = analysis.classes.collapse(labels, others, because).reshape(-1)
    outer = _channels(analysis, node, inner, weight, groups, transposed)
    shape = [-1 if d == channel else 1 for d in range(labels.dim())]
    return biased(analysis, node, outer.view(shape).expand(node.shape), bias, channel)


def _channels(
    analysis: Analysis, node: Node, inner: Tensor, weight: Held, groups: int, transposed: bool
) -> Tensor:
    """Labels of the output channels (C',), with the weight's axes tied.

    Weight: (out, in/groups, ...), transposed (in, out/groups, ...).
    """
    classes, table = analysis.classes, analysis.table
    because = analysis.because(node, "ties its channels to others that cannot go")
    dense = groups < len(inner) or groups == 1
    rows = table.along(weight, 0, reads=transposed and dense)
    columns = table.along(weight, 1, reads=not transposed and dense)
    if rows is None or columns is None:
        table.refuse(weight, because)
        classes.fix(inner, because)
        return torch.tensor(FIXED).expand(weight.shape[1] * groups if transposed else weight.shape[0])
    if groups == 1:
        source, outer = (rows, columns) if transposed else (columns, rows)
        if weight.shape[0 if transposed else 1] > 1:
            classes.merge(inner, source, because)
        else:
            classes.fix(inner, because)
        return outer
    if groups == len(inner):  # depthwise: a channel and what is made of it go together
        if transposed:
            classes.merge(inner, rows, because)
            classes.fix(columns, because)
            return inner.repeat_interleave(weight.shape[1])
        outer = inner.repeat_interleave(weight.shape[0] // groups)
        classes.merge(outer, rows, because)
        return outer
    # grouped: the same position in every group, so that the groups stay equal
    inner = classes.collapse(inner.view(groups, -1), [0], because)[0]
    if transposed:
        classes.merge(inner.repeat(groups), rows, because)
        return columns.repeat(groups)
    if len(inner) > 1:
        classes.merge(inner, columns, because)
    else:
        classes.fix(inner, because)
    return classes.collapse(rows.view(groups, -1), [0], because)[0].repeat(groups)


def batch_norm(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """batch_norm and instance_norm, in evaluation mode: each channel for itself."""
    labels = analysis.labels(args[0])
    for vector in args[1:5]:
        if isinstance(vector, (Tensor, Held)):
            labels = biased(analysis, node, labels, vector, 1)
    return results(node, labels)


def layer_norm(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """layer_norm and rms_norm. Removing units changes the mean and the spread of the others."""
    labels = analysis.labels(args[0])
    last = range(labels.dim() - len(args[1]), labels.dim())
    if set(analysis.classes.varying(labels)) & set(last):
        analysis.inexact.append(labels)
    for value in args[2:4]:
        if isinstance(value, (Tensor, Held)):
            labels = join(analysis, node, labels, analysis.labels(value))
    return results(node, labels)


def group_norm(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Channels of a normalisation group are normalised together; groups stay equal in size."""
    labels, groups = analysis.labels(args[0]), args[1]
    because = analysis.because(node, "normalises positions together")
    if 1 in analysis.classes.varying(labels):
        others = [d for d in range(labels.dim()) if d != 1]
        vector = analysis.classes.collapse(labels, others, because).reshape(-1)
        if groups < len(vector):
            analysis.inexact.append(labels)
            analysis.classes.collapse(vector.view(groups, -1), [0], because)
    elif analysis.classes.varying(labels):
        analysis.classes.fix(labels, because)
    for value in args[2:4]:
        if isinstance(value, (Tensor, Held)):
            labels = biased(analysis, node, labels, value, 1)
    return labels


def embedding(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not isinstance(args[0], Held):
        return analysis.unknown(node, args, kwargs, "has a computed table")
    size = args[0].full[0] if args[0].index is None else 0
    analysis.table.axis(args[0].name, 0, size or args[0].shape[0])
    out = analysis.table.along(args[0], 1)
    rows = analysis.table.along(args[0], 0)
    if out is None or rows is None:
        return analysis.unknown(node, args, kwargs, "has a rearranged table")
    analysis.classes.fix(rows, analysis.because(node, "looks its rows up"))
    return out.expand(node.shape)


def recurrent(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """lstm, gru, rnn: hidden units, the same in every layer and direction (they share one hidden size). An LSTM's
    projection makes units of its own from them, which its outputs and its recurrence read."""
    name = kind(node)
    if not node.op.endswith(".input"):
        return analysis.unknown(node, args, kwargs, "runs over packed sequences")
    x, state, weights, has_bias, layers, _, _, both, _ = args
    gates = {"lstm": 4, "gru": 3}.get(name, 1)
    per, ways = (4 if has_bias else 2), (2 if both else 1)
    projects = name == "lstm" and len(weights) == (per + 1) * layers * ways
    per += projects
    if len(weights) != per * layers * ways or not all(
        isinstance(w, Held) and w.index is None for w in weights
    ):
        return analysis.unknown(node, args, kwargs, "has computed weights")
    classes, table = analysis.classes, analysis.table
    because = analysis.because(node, "ties its hidden units to others that cannot go")
    labels = analysis.labels(x)
    inner = classes.collapse(labels, list(range(labels.dim() - 1)), because).reshape(-1)
    hidden = classes.fresh(weights[1].shape[0] // gates)
    given = classes.fresh(weights[1].shape[1]) if projects else hidden
    for layer in range(layers):
        for way in range(ways):
            part = weights[(layer * ways + way) * per :][:per]
            rows = part[: per - projects]
            ties = [
                (part[0], 1, inner),
                (part[1], 1, given),
                *((held, 0, hidden.repeat(gates)) for held in rows),
            ]
            ties += [(part[-1], 0, given), (part[-1], 1, hidden)] if projects else []
            for held, dim, vector in ties:
                slices = table.along(held, dim, reads=dim == 1)
                assert slices is not None
                classes.merge(vector, slices, because)
        inner = given.repeat(ways)
    for i, (value, source) in enumerate(zip(flat(state), flat(node.args[1]), strict=True)):
        if kind(source) != "zeros":
            units = given if i == 0 else hidden
            join(analysis, node, units.expand(value.shape), analysis.labels(value))
    parts = {user.args[1]: user for user in node.users if user.op == "operator.getitem"}
    made = {0: inner, 1: given, 2: hidden}
    return [made[i].expand(parts[i].shape) if i in parts else None for i in range(max(parts, default=0) + 1)]


_CONV = (
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolution",
)
LAYERS: dict[str, Rule] = {
    "linear": linear, "matmul": matmul, "mm": matmul, "bmm": matmul, "addmm": addmm, "baddbmm": addmm,
    "einsum": einsum, **dict.fromkeys(_CONV, convolution),
    "batch_norm": batch_norm, "instance_norm": batch_norm, "_native_batch_norm_legit_no_training": batch_norm,
    "layer_norm": layer_norm, "native_layer_norm": layer_norm, "rms_norm": layer_norm, "group_norm": group_norm,
    "embedding": embedding, "scaled_dot_product_attention": attention,
    "lstm": recurrent, "gru": recurrent, "rnn_tanh": recurrent, "rnn_relu": recurrent,
}  # fmt: skip
