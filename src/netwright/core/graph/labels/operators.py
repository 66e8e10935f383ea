"""Which rule follows which operator; what no rule foresees is as good as unknown."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from netwright.core.graph.ir import Node
from netwright.core.graph.labels.analysis import Analysis
from netwright.core.graph.labels.layers import LAYERS
from netwright.core.graph.labels.moving import MOVING, moving, padding, shuffling
from netwright.core.graph.labels.rules import (
    CREATING,
    IDENTITY,
    REDUCING,
    SOFTMAX,
    SPATIAL,
    Rule,
    creating,
    identity,
    kind,
    pointwise,
    prelu,
    reducing,
    softmax,
    spatial,
)  # fmt: skip
from netwright.core.graph.labels.values import Held, fixed, flat


def follow(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The labels of what a node gives, from those of its arguments."""
    try:
        value = _apply(analysis, node, args, kwargs)
        if isinstance(value, Tensor) and tuple(value.shape) != node.shape:
            raise ValueError(f"labels of shape {tuple(value.shape)}")
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        # an operator used in a way that its rule does not foresee: as good as unknown
        value = analysis.unknown(node, args, kwargs, f"is used in a way that is not known ({error})")
    analysis.values[node] = value
    return value


def _apply(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    operands = flat((*args, *kwargs.values()))
    if node.op.startswith(("operator.", "aten.sym_")):
        if node.op == "operator.getitem":
            return args[0][args[1]]
        if node.op == "aten.sym_size.int":
            return args[0].shape[args[1]]
        return None if node.target is None else node.target(*args, **kwargs)
    rule = lookup(node)
    if rule is None:
        return analysis.unknown(node, args, kwargs)
    if not any(isinstance(v, (Tensor, Held)) for v in operands):
        return fixed(node)
    return rule(analysis, node, args, kwargs)


def lookup(node: Node) -> Rule | None:
    """The rule of an operator; None if the tables know none."""
    name = kind(node)
    if name in LAYERS:
        return LAYERS[name]
    table: list[tuple[Any, Rule]] = [
        (IDENTITY, identity), (MOVING, moving), (REDUCING, reducing), (SPATIAL, spatial), (SOFTMAX, softmax),
        ({"constant_pad_nd", "pad"}, padding), ({"pixel_shuffle", "channel_shuffle"}, shuffling),
        (CREATING, creating), ({"prelu"}, prelu),
    ]  # fmt: skip
    for names, rule in table:
        if name in names:
            return rule
    tags = getattr(node.target, "tags", ())
    return pointwise if torch.Tag.pointwise in tags or name.endswith("_like") or name == "copy" else None
