"""Steps that no single torch function is. Networks read from ONNX call them; they run under torch.export."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def stack_sizes(like: Tensor, values: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Sizes as an int64 tensor of this shape, where `like` lives."""
    if not values:
        return torch.zeros(list(shape), dtype=torch.int64, device=like.device)
    scalars = [torch.scalar_tensor(v, dtype=torch.int64, device=like.device) for v in values]
    return torch.stack(scalars).reshape(list(shape))


def filled(like: Tensor, shape: list[int], value: float, dtype: torch.dtype) -> Tensor:
    """One number everywhere, where `like` lives."""
    return torch.full(shape, value, dtype=dtype, device=like.device)


def count_up(like: Tensor, start: float, stop: float, step: float) -> Tensor:
    """torch.arange, where `like` lives."""
    return torch.arange(start, stop, step, device=like.device)


def floor_size(size: float) -> int:
    return math.floor(size)


def ceil_size(size: float) -> int:
    return math.ceil(size)


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], upper: bool,
             value: float) -> Tensor:  # fmt: skip
    """Pad the trailing dimensions so that a window gives ceil(size / stride) results; the odd one after if upper."""
    pads: list[int] = []
    for i in reversed(range(len(kernel))):
        size = x.shape[x.dim() - len(kernel) + i]
        reach = (kernel[i] - 1) * dilation[i] + 1
        total = max(0, (-(-size // stride[i]) - 1) * stride[i] + reach - size)
        less, more = total // 2, total - total // 2
        pads += [less, more] if upper else [more, less]
    return F.pad(x, pads, value=value)


def pad_by_index(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Pad one axis by copies of its entries: edge, reflect or wrap."""
    size = x.shape[axis]
    index = torch.arange(-before, size + after, device=x.device)
    if mode == "edge":
        index = index.clamp(0, size - 1)
    elif mode == "wrap":
        index = index % size
    else:
        period = 2 * (size - 1)
        index = (size - 1) - ((size - 1) - index % period).abs() if size > 1 else index * 0
    return x.index_select(axis, index)


def average_inside(x: Tensor, kernel: list[int], stride: list[int], pads: list[int]) -> Tensor:
    """Average pooling with unequal padding (as for F.pad) that does not count the padding."""
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(kernel)]
    inside = torch.ones_like(x[:1, :1])
    return pool(F.pad(x, pads), kernel, stride) / pool(F.pad(inside, pads), kernel, stride)


def resize_axis(x: Tensor, axis: int, size: int, scale: float, mode: str, place: str, nearest: str) -> Tensor:
    """Resize one axis to `size`. place: where output positions lie in the input, as ONNX's
    coordinate_transformation_mode; nearest: its nearest_mode."""
    n = x.shape[axis]
    i = torch.arange(size, device=x.device, dtype=torch.float32)
    if place == "asymmetric":
        at = i / scale
    elif place == "align_corners":
        at = i * (n - 1) / (size - 1) if size > 1 else i * 0
    elif place == "pytorch_half_pixel" and size == 1:
        at = i * 0
    else:
        at = (i + 0.5) / scale - 0.5
    if mode == "nearest":
        rounded = {
            "floor": at.floor(),
            "ceil": at.ceil(),
            "round_prefer_floor": (at - 0.5).ceil(),
            "round_prefer_ceil": (at + 0.5).floor(),
        }[nearest]
        return x.index_select(axis, rounded.long().clamp(0, n - 1))
    at = at.clamp(0, n - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=n - 1)
    part = (at - low).reshape([-1] + [1] * (x.dim() - 1 - axis)).to(x.dtype)
    return x.index_select(axis, low) * (1 - part) + x.index_select(axis, high) * part


def softmax_of_rest(x: Tensor, axis: int, log: bool) -> Tensor:
    """Softmax over all dimensions from `axis` on, as ONNX had it before opset 13."""
    flat = x.flatten(axis)
    return (flat.log_softmax(-1) if log else flat.softmax(-1)).reshape(x.shape)


def scatter_nd(data: Tensor, indices: Tensor, updates: Tensor, add: bool) -> Tensor:
    """data with data[indices[...]] set to updates, or increased by them."""
    return data.index_put(tuple(indices.unbind(-1)), updates, accumulate=add)


def gather_nd(data: Tensor, indices: Tensor) -> Tensor:
    """data[indices[...]], the last axis of the indices counting along data's first axes."""
    return data[tuple(indices.unbind(-1))]


def from_start(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Indices along an axis of x, negative ones counted from its end."""
    return torch.where(indices < 0, indices + x.shape[axis], indices)


def gather_elements(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """torch.gather that takes negative indices."""
    return x.gather(axis, from_start(x, indices, axis))


def top(x: Tensor, count: int, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The extreme values in order, and where they are; of equal ones the first."""
    values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


def looked_up(x: Tensor, keys: Tensor, values: Tensor, default: float) -> Tensor:
    """For each entry of x, the value at its place among the keys; `default` where it is none of them."""
    hit = x.unsqueeze(-1) == keys
    found = values[hit.to(torch.int64).argmax(-1)]
    return torch.where(hit.any(-1), found, torch.full_like(found, default))


def unit_length(x: Tensor, order: float, axis: int) -> Tensor:
    """x over its norm along the axis; zero stays zero."""
    length = torch.linalg.vector_norm(x, order, axis, True)
    return x / torch.where(length == 0, torch.ones_like(length), length)


def one_hot(indices: Tensor, depth: int, values: Tensor, axis: int) -> Tensor:
    """values[1] at the index and values[0] elsewhere, along a new axis; indices out of range give values[0]."""
    axis = axis % (indices.dim() + 1)
    steps = torch.arange(depth, device=indices.device).reshape([-1] + [1] * (indices.dim() - axis))
    index = indices.long().unsqueeze(axis)
    hit = torch.where(index < 0, index + depth, index) == steps
    return torch.where(hit, values[1], values[0])


def cumulative_sum(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    x = x.flip(axis) if reverse else x
    total = x.cumsum(axis, dtype=x.dtype)
    total = total - x if exclusive else total
    return total.flip(axis) if reverse else total


def response_norm(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """ONNX's LRN: each value over a power of the mean square of its `size` neighbours along channels."""
    before = (size - 1) // 2
    square = F.pad((x * x).movedim(1, -1), [before, size - 1 - before])
    mean = square.unfold(-1, size, 1).sum(-1).movedim(-1, 1) / size
    return x / (bias + alpha * mean) ** beta


def integer_product(a: Tensor, b: Tensor, a_zero: Tensor | int, b_zero: Tensor | int) -> Tensor:
    """(a - a_zero) @ (b - b_zero) of 8-bit integers, exact, as int32."""
    rows = a_zero[..., None] if isinstance(a_zero, Tensor) and a_zero.dim() else a_zero
    left = a.double() - rows
    return (left @ (b.double() - b_zero)).to(torch.int32)


def integer_convolution(x: Tensor, w: Tensor, x_zero: Tensor | int, w_zero: Tensor | int, stride: list[int],
                        pads: list[int], dilation: list[int], groups: int) -> Tensor:  # fmt: skip
    """The same for a convolution."""
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[w.dim() - 2]
    inside = F.pad(x.double() - x_zero, pads)
    each = w_zero.reshape([-1] + [1] * (w.dim() - 1)) if isinstance(w_zero, Tensor) else w_zero
    return conv(inside, w.double() - each, None, stride, 0, dilation, groups).to(torch.int32)


def quantise_dynamically(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x over its own range as uint8, with scale and zero point."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = (-low / safe).round().clamp(0, 255)
    codes = ((x / safe).round() + zero).clamp(0, 255)
    return codes.to(torch.uint8), scale, zero.to(torch.uint8)


def quantise(
    x: Tensor, scale: Tensor, zero: Tensor, axis: int, low: int, high: int, dtype: torch.dtype
) -> Tensor:
    """round(x / scale) + zero, kept within [low, high]. scale, zero: () or (C,) along the axis."""
    shape = _along(x, scale, axis)
    codes = (x / scale.reshape(shape)).round() + zero.reshape(shape)
    return codes.clamp(low, high).to(dtype)


def dequantise(x: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
    """(x - zero) * scale."""
    shape = _along(x, scale, axis)
    return (x.to(scale.dtype) - zero.reshape(shape).to(scale.dtype)) * scale.reshape(shape)


def _along(x: Tensor, scale: Tensor, axis: int) -> list[int]:
    if scale.numel() == 1:
        return []
    return [-1 if i == axis % x.dim() else 1 for i in range(x.dim())]
