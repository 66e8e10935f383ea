"""Convolutions and linear layers whose weights and inputs are signs, as operators of torch: 64 products in one word.

Their loops (popcount.py) are compiled by numba (the extra `kernels`) when first used, for float32 on the processor, one
thread. Sums are whole numbers, and exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from netwright.core.errors import MissingExtra
from netwright.core.weights import kernels


class Window(NamedTuple):
    """How a convolution moves over an image: each of (height, width)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def places(self, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the output for an image of this size."""
        high, wide = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, *self, strict=True)
        )  # fmt: skip
        return high, wide


def serves(x: Tensor) -> bool:
    """Whether the loops may run on x now: float32 on the processor, no gradient is asked for, nothing is being traced,
    and numba is there."""
    return (
        type(x) is Tensor
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and not (torch.is_grad_enabled() and x.requires_grad)
        and kernels.available()
    )


def packed(signs: Tensor) -> Tensor:
    """signs (..., n), positive or not -> words (..., ceil(n / 64)) int64: bit i % 64 of word i // 64 is set where sign
    i is positive, and none behind the last."""
    bits = np.packbits(signs.cpu().numpy() > 0, axis=-1, bitorder="little")
    spare = [(0, 0)] * (bits.ndim - 1) + [(0, -bits.shape[-1] % 8)]
    return torch.from_numpy(np.pad(bits, spare).view(np.int64))


def convolution_words(signs: Tensor) -> Tensor:
    """Signs of a kernel (O, C, kh, kw) -> words (O, ceil(C / 64) kh kw)."""
    words = packed(signs.permute(0, 2, 3, 1).contiguous())
    return words.permute(0, 3, 1, 2).flatten(1).contiguous()


def borders(signs: Tensor, window: Window, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What a sum is when no bit differs, kernel (O, C, kh, kw) on an image of this size: base (O, kinds, Wo) int64, and
    the kind (Ho,) of each row of the output.

    Outside of the image there are zeros, in words like -1 everywhere: C less the bits that a tap has set. That is put
    right here, by kinds of rows, of which there are few.
    """
    inside = []
    for axis, places in enumerate(window.places(size)):
        kernel, stride, padding, dilation = (part[axis] for part in window)
        at = np.arange(places)[:, None] * stride - padding + np.arange(kernel) * dilation
        inside.append((at >= 0) & (at < size[axis]))
    kinds, kind = np.unique(inside[0], axis=0, return_inverse=True)
    plus = (signs.cpu().numpy() > 0).sum(1)
    own = np.einsum(
        "ki,xj,oij->okx", kinds.astype(np.int64), inside[1].astype(np.int64), signs.shape[1] - 2 * plus
    )
    base = own + 2 * plus.sum((1, 2))[:, None, None]
    return torch.from_numpy(base), torch.from_numpy(kind.reshape(-1))


class Held(NamedTuple):
    """What an operator reads besides its input: as tensors, and the same memory as arrays, since asking for it costs as
    much as a small layer."""

    tensors: tuple[Tensor, ...]
    arrays: tuple[Any, ...]

    @classmethod
    def of(cls, *tensors: Tensor) -> Held:
        kept = tuple(t.detach().contiguous() for t in tensors)
        arrays = [t.numpy() for t in kept]
        return cls(kept, tuple(a.view(np.uint64) if i == 1 else a for i, a in enumerate(arrays)))


def binary_conv(x: Tensor, held: Held, window: tuple[int, ...]) -> Tensor:
    """x (B, C, H, W) -> (B, O, Ho, Wo). held: threshold (C,), words (`convolution_words`), base and kind (`borders`),
    scale and shift (O,). window: a Window's numbers in a row."""
    if _get_current_dispatch_mode() is not None:  # somebody counts operators
        return torch.ops.netwright.binary_conv(x, *held.tensors, window)
    return _convolve(x, held.arrays, window)


def binary_linear(x: Tensor, held: Held) -> Tensor:
    """x (R, C) -> (R, O). held: threshold (C,), words (K, O) (`packed`, turned over), scale and shift (O,)."""
    if _get_current_dispatch_mode() is not None:
        return torch.ops.netwright.binary_linear(x, *held.tensors)
    return _multiply(x, held.arrays)


def _convolve(x: Tensor, arrays: tuple[Any, ...], window: tuple[int, ...]) -> Tensor:
    threshold, words, base, kind, scale, shift = arrays
    batch, channels, height, width = x.shape
    out = x.new_empty(batch, len(words), len(kind), base.shape[2])
    planes = np.empty((-(-channels // 64), height * width), np.uint64)
    images, made, loops = _array(x).reshape(batch, channels, -1), out.numpy(), _loops()
    for image, result in zip(images, made, strict=True):
        loops.pack_channels(image, threshold, planes)
        loops.convolve(planes, height, width, window, words, base, kind, scale, shift, result)
    return out


def _multiply(x: Tensor, arrays: tuple[Any, ...]) -> Tensor:
    threshold, words, scale, shift = arrays
    rows = np.empty((len(x), len(words)), np.uint64)
    out, loops = x.new_empty(len(x), words.shape[1]), _loops()
    loops.pack_rows(_array(x), threshold, rows)
    loops.multiply(rows, words, x.shape[1], scale, shift, out.numpy())
    return out


# operators of torch, for whoever counts what runs
torch.library.define(
    "netwright::binary_conv",
    "(Tensor x, Tensor threshold, Tensor words, Tensor base, Tensor kind, Tensor scale, Tensor shift, int[] window)"
    " -> Tensor",
)
torch.library.define(
    "netwright::binary_linear",
    "(Tensor x, Tensor threshold, Tensor words, Tensor scale, Tensor shift) -> Tensor",
)


@torch.library.impl("netwright::binary_conv", "CPU")
def _(x: Tensor, *rest: Any) -> Tensor:
    *held, window = rest
    return _convolve(x, Held.of(*held).arrays, tuple(window))


@torch.library.impl("netwright::binary_linear", "CPU")
def _(x: Tensor, *held: Tensor) -> Tensor:
    return _multiply(x, Held.of(*held).arrays)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


@cache
def _loops() -> Any:
    try:
        from netwright.core.weights import popcount
    except Exception as error:  # a numba that does not fit this numpy is no ImportError
        raise MissingExtra("numba", "kernels", "a product of signs in words") from error
    return popcount


@register_flop_formula(torch.ops.netwright.binary_conv, get_raw=True)
def _(x: Tensor, threshold: Tensor, words: Tensor, base: Tensor, kind: Tensor, *rest: Any, **_: Any) -> int:
    taps = rest[2][0] * rest[2][1]
    return 2 * x.shape[0] * x.shape[1] * len(words) * taps * len(kind) * base.shape[2]


@register_flop_formula(torch.ops.netwright.binary_linear, get_raw=True)
def _(x: Tensor, threshold: Tensor, words: Tensor, *_: Any, **__: Any) -> int:
    return 2 * x.shape[0] * x.shape[1] * words.shape[1]
