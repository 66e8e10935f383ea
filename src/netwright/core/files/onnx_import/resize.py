"""Resize and its forerunner Upsample."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F

from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.functions import floor_size, resize_axis
from netwright.core.files.onnx_import.registry import Node, reads
from netwright.core.files.onnx_import.values import Results, Size

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


@reads("Upsample", "Resize")
def _resize(e: Emitter, n: Node) -> Results:
    x, mode = n.operand(0), n.attribute("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise n.refuse(f"mode {mode}", "linear, nearest")
    old = n.op == "Upsample" or n.opset < 11
    place = "asymmetric" if old else n.attribute("coordinate_transformation_mode", "half_pixel")
    nearest = "floor" if old else n.attribute("nearest_mode", "round_prefer_floor")
    if place not in ("asymmetric", "align_corners", "half_pixel", "pytorch_half_pixel"):
        raise n.refuse(f"coordinates {place}", "asymmetric, align_corners, half_pixel, pytorch_half_pixel")
    if n.attribute("antialias", 0) or n.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise n.refuse("with antialias or an aspect ratio policy")
    sizes, scales = _wanted(e, n, x, old)
    changed = [i for i in range(x.dim) if _changes(e, x, i, sizes, scales)]
    if not changed:
        return x
    torch_mode = _layer_mode(mode, place, nearest)
    if torch_mode and changed[0] >= 2 and x.dim in _LINEAR:
        kind = {"linear": _LINEAR[x.dim]}.get(torch_mode, torch_mode)
        corners = {"align_corners": place == "align_corners"} if torch_mode == "linear" else {}
        if scales is None:
            return e.call(F.interpolate, x, size=sizes[2:], mode=kind, **corners)
        if place != "align_corners":
            return e.call(F.interpolate, x, scale_factor=scales[2:], mode=kind, **corners)
    size: Any
    for axis in changed:
        old_size = e.size(x, axis)
        if scales is None:
            size, scale = sizes[axis], sizes[axis] / old_size
        else:
            scale = scales[axis]
            size = _floor(old_size * scale)
        x = e.call(resize_axis, x, axis, size, scale, mode, place, nearest)
    return x


def _floor(value: Any) -> Any:
    return value.step(floor_size, value) if isinstance(value, Size) else math.floor(value)


def _layer_mode(mode: str, place: str, nearest: str) -> str | None:
    """The mode in which torch interpolates in the same way, if it has one."""
    if mode == "linear":
        return "linear" if place in ("half_pixel", "align_corners") else None
    if place == "asymmetric" and nearest == "floor":
        return "nearest"
    return None


def _wanted(e: Emitter, n: Node, x: Any, old: bool) -> tuple[list[Any], list[float] | None]:
    """Sizes of all axes, or else factors of all axes."""
    where = 1 if old else 2
    if n.has(3) and len(n.sizes(3)):
        axes = n.attribute("axes") or list(range(x.dim))
        sizes = e.sizes(x)
        for axis, size in zip(axes, n.sizes(3), strict=True):
            sizes[axis] = size
        # a batch that the file fixes stays as it comes
        return [e.size(x, 0), *sizes[1:]], None
    found = n.constant(where) if n.has(where) else None
    given = found.tolist() if found is not None else list(n.attribute("scales"))
    scales = [1.0] * x.dim
    for axis, scale in zip(n.attribute("axes") or range(x.dim), given, strict=True):
        scales[axis] = scale
    return [], scales


def _changes(e: Emitter, x: Any, axis: int, sizes: list[Any], scales: list[float] | None) -> bool:
    if scales is not None:
        return scales[axis] != 1.0
    before, after = e.size(x, axis), sizes[axis]
    if isinstance(before, Size) and isinstance(after, Size):
        return before.probes != after.probes
    return isinstance(before, Size) or isinstance(after, Size) or before != after
