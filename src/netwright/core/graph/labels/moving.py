"""How labels pass operators that only move elements: they are run on the labels themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from netwright.core.graph.ir import Node
from netwright.core.graph.labels.analysis import Analysis
from netwright.core.graph.labels.rules import kind, unless_along
from netwright.core.graph.labels.values import Held

# run as they are, on labels instead of activations
MOVING = {
    "view", "reshape", "_unsafe_view", "view_as", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze",
    "permute", "transpose", "t", "movedim", "swapaxes", "numpy_T", "mT", "select", "slice", "narrow", "chunk",
    "split", "split_with_sizes", "unbind", "unsafe_chunk", "unsafe_split", "tensor_split", "expand", "expand_as",
    "repeat", "repeat_interleave", "tile", "flip", "cat", "concat", "stack", "pixel_unshuffle", "index_select",
    "index", "roll", "diagonal", "broadcast_to",
}  # fmt: skip

# moving operators that cannot be repeated on fewer elements if the units lie along the dimensions they move
POSITIONAL = {"roll", "repeat_interleave", "index_select", "index", "diagonal", "tensor_split", "narrow"}


def moving(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the operator on labels, or on the positions of a held tensor."""
    if kind(node) in ("index", "index_select"):
        return _indexed(analysis, node, args, kwargs)
    # labels lie in memory in another way than the elements do, so a view of them may be none
    target = torch.ops.aten.reshape.default if kind(node) in ("view", "_unsafe_view") else node.target
    assert target is not None
    if isinstance(args[0], Held) and not any(isinstance(a, Tensor) for a in args[1:]):
        return args[0].moved(lambda positions: target(positions, *args[1:], **kwargs))
    inputs = [analysis.labels(a) for a in (args[0] if isinstance(args[0], (list, tuple)) else [args[0]])]
    if kind(node) in POSITIONAL or (kind(node) == "slice" and (*args, 1, 1, 1, 1)[4] != 1):
        _fix_moved(analysis, node, inputs[0], args, kwargs)
    first = inputs if isinstance(args[0], (list, tuple)) else inputs[0]
    result = target(first, *(_plain(a) for a in args[1:]), **kwargs)
    return list(result) if isinstance(result, (list, tuple)) else result


def _plain(value: Any) -> Any:
    return value.positions() if isinstance(value, Held) else value


def _fix_moved(
    analysis: Analysis, node: Node, labels: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Fix units along the dimensions that a positional operator works on (all, where it does not say)."""
    name = kind(node)
    if name == "slice" or name == "narrow":
        dims = [args[1] if len(args) > 1 else 0]
    elif name == "roll":
        dims = list(args[2]) if len(args) > 2 and args[2] else list(range(labels.dim()))
    else:
        dims = list(range(labels.dim()))
    unless_along(analysis, node, labels, dims)


def _indexed(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Look-ups at places that the network holds; looked-up dimensions keep all their elements."""
    source = args[0]
    where = [args[2]] if kind(node) == "index_select" else list(args[1])
    if any(isinstance(w, Tensor) for w in where) or any(
        isinstance(w, Held) and analysis.content(w).dtype not in (torch.int64, torch.int32) for w in where
    ):
        return analysis.unknown(node, args, kwargs, "looks elements up at computed places")
    places = [analysis.content(w).cpu() if isinstance(w, Held) else w for w in where]
    for w in where:
        if isinstance(w, Held):
            analysis.table.refuse(w, "it holds positions")
    dims = [args[1]] if kind(node) == "index_select" else [d for d, p in enumerate(places) if p is not None]
    rest = (args[1], places[0]) if kind(node) == "index_select" else (places,)
    assert node.target is not None
    target = node.target
    if isinstance(source, Held):
        for vector in (analysis.table.along(source, d) for d in dims):
            if vector is None:
                analysis.table.refuse(source, "its elements are looked up")
            else:
                analysis.classes.fix(vector, analysis.because(node, "looks them up"))
        return source.moved(lambda positions: target(positions, *rest))
    unless_along(analysis, node, source, dims)
    return target(source, *rest)


def padding(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Padding with a constant: more of the same units, or new ones along a dimension that has units."""
    if len(args) > 2 and isinstance(args[2], str) and args[2] != "constant":
        return analysis.unknown(node, args, kwargs, f"pads by {args[2]}")
    labels = analysis.labels(args[0])
    moving = analysis.classes.varying(labels)
    for i in range(len(args[1]) // 2):
        dim = labels.dim() - 1 - i
        for amount, front in ((args[1][2 * i], True), (args[1][2 * i + 1], False)):
            if amount < 0:
                labels = labels.narrow(dim, -amount if front else 0, labels.shape[dim] + amount)
            if amount <= 0:
                continue
            shape = [amount if d == dim else n for d, n in enumerate(labels.shape)]
            if dim in moving:
                view = [amount if d == dim else 1 for d in range(labels.dim())]
                extra = analysis.classes.fresh(amount).view(view).expand(shape)
            else:
                extra = labels.narrow(dim, 0, 1).expand(shape)  # what it pads: the same units
            labels = torch.cat([extra, labels] if front else [labels, extra], dim)
    return labels


def shuffling(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """pixel_shuffle and channel_shuffle: channels that are spread over a block, or over groups, go together."""
    labels, count = analysis.labels(args[0]), args[1]
    dim = labels.dim() - 3 if kind(node) == "pixel_shuffle" else 1
    inner = (-1, count * count) if kind(node) == "pixel_shuffle" else (count, -1)
    folded = labels.reshape(*labels.shape[:dim], *inner, *labels.shape[dim + 1 :])
    if {dim, dim + 1} <= set(analysis.classes.varying(folded)):
        across = dim + 1 if kind(node) == "pixel_shuffle" else dim
        analysis.classes.collapse(folded, [across], analysis.because(node, "ties channels"))
    assert node.target is not None
    return node.target(labels, count)
