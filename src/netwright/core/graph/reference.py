"""What a network must compute once units are gone: the original, run node by node with those units silenced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from netwright.core.graph.cut import removed_labels
from netwright.core.graph.groups import Dependencies
from netwright.core.graph.ir import Node
from netwright.core.graph.labels.moving import MOVING
from netwright.core.graph.labels.rules import kind


def masked_outputs(
    found: Dependencies, keep: Mapping[str, Tensor], inputs: tuple[Tensor, ...]
) -> list[Tensor]:
    """Outputs with the other units zeroed wherever they show, and left out of normalisations over units.

    inputs: of the batch size that the graph's shapes are written for.
    """
    gone = removed_labels(found, keep)
    known = {group.name: group for group in found.groups}
    zero: dict[str, list[tuple[int, Tensor]]] = {}
    for name, kept in keep.items():
        out = torch.ones(known[name].size, dtype=torch.bool)
        out[kept] = False
        for part in known[name].slices:
            zero.setdefault(part.parameter, []).append((part.axis, part.index[out].flatten()))

    def hold(node: Node) -> Tensor:
        tensor = found.graph.held(node).detach()
        for axis, index in zero.get(node.parameter or "", []):
            tensor = tensor.index_fill(axis, index.to(tensor.device), 0)
        return tensor

    def mask(node: Node, like: Tensor) -> Tensor | None:
        stays = None
        for dim, labels in found.patterns.get(node, {}).items():
            here = ~torch.isin(labels, gone)
            if not bool(here.all()):
                shape = [-1 if d == dim else 1 for d in range(like.dim())]
                here = here.view(shape).to(like.device)
                stays = here if stays is None else stays & here
        return stays

    def rule(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert node.target is not None
        over = mask(node.args[0], args[0]) if node.args and isinstance(args[0], Tensor) else None
        if over is not None and kind(node) in ("layer_norm", "rms_norm", "group_norm"):
            value = _normalised(kind(node), over, args, kwargs)
        else:
            value = node.target(*args, **kwargs)
        stays = mask(node, value) if isinstance(value, Tensor) and value.is_floating_point() else None
        if stays is None or _moves(node):
            return value
        # filled, since what is silenced may be no number; in place where others see the same memory
        return value.masked_fill_(~stays, 0) if _in_place(node) else value.masked_fill(~stays, 0)

    with torch.no_grad():
        return found.graph.run(inputs, rule, hold)


def _moves(node: Node) -> bool:
    """Whether it shows elements of its arguments, which are silenced already (and may be written through it)."""
    return kind(node.args[0] if node.op == "operator.getitem" else node) in MOVING


def _in_place(node: Node) -> bool:
    return node.op.startswith("aten.") and node.op.split(".")[1].endswith("_")


def _normalised(name: str, stays: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Layer, RMS or group normalisation over the units that stay."""
    x, settings = args[0], (*args[2:], *[None] * 3)
    weight = kwargs.get("weight", settings[0])
    bias = None if name == "rms_norm" else kwargs.get("bias", settings[1])
    eps = kwargs.get("eps", settings[1] if name == "rms_norm" else settings[2])
    if eps is None:
        eps = torch.finfo(x.dtype).eps if name == "rms_norm" else 1e-5
    present = stays.expand_as(x).to(x.dtype)
    if name == "group_norm":
        folded = [t.reshape(x.shape[0], args[1], -1) for t in (x, present)]
        shape = [1, -1] + [1] * (x.dim() - 2)
        weight, bias = (None if t is None else t.view(shape) for t in (weight, bias))
        dims: tuple[int, ...] = (2,)
    else:
        folded = [x, present]
        dims = tuple(range(x.dim() - len(args[1]), x.dim()))
    value, present = folded
    count = present.sum(dims, keepdim=True).clamp_min(1)  # a group that is gone altogether
    if name != "rms_norm":
        value = value - (value * present).sum(dims, keepdim=True) / count
    spread = (value.square() * present).sum(dims, keepdim=True) / count
    value = (value / (spread + eps).sqrt() * present).reshape(x.shape)
    value = value if weight is None else value * weight
    return value if bias is None else value + bias
