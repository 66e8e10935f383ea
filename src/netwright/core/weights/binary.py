"""Layers whose weights and inputs are signs, with a bit for each weight.

On the processor they run in words of 64 signs (xnor.py); elsewhere, where a gradient is asked for and in exported files
as operators on floats that are -1 or 1. Sums are whole numbers below 2^24, so that both give the same, to the bit.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.weights import xnor
from netwright.core.weights.bits import pack, unpack


class PackedSigns(nn.Module):
    """The parts of a layer: codes (a bit for each weight, 8 to a byte), threshold (C,) that inputs are held against,
    scale (O,) of the sums, bias (O,) or None."""

    threshold: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, threshold: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        """weight: (O, C, ...), of which the sign counts; 0 counts as positive."""
        super().__init__()
        self.shape = tuple(weight.shape)
        codes = pack((weight.detach().reshape(-1) >= 0).int(), 1)[0]
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("threshold", threshold.detach().clone())
        self.register_buffer("scale", scale.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._ready: dict[Any, Any] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, scales, thresholds and biases."""
        return sum(tensor.nbytes for tensor in (*self.parameters(), *self.buffers()))

    def weight(self) -> Tensor:
        """-1 and 1 (O, C, ...)."""
        return (2 * unpack([self.codes], 1, math.prod(self.shape)) - 1).view(self.shape).to(self.scale.dtype)

    def finished(self, sums: Tensor) -> Tensor:
        """Scaled sums and the bias; the outputs lie along dimension 1 of three or more, else along the last."""
        spread = (-1, *[1] * (len(self.shape) - 2))
        out = sums * self.scale.view(spread)
        return out if self.bias is None else out + self.bias.view(spread)

    def signs(self, x: Tensor) -> Tensor:
        """-1 and 1 (B, C, ...): whether an input reaches its threshold."""
        least = self.threshold.view(-1, *[1] * (len(self.shape) - 2))
        one = torch.ones((), dtype=x.dtype, device=x.device)
        return torch.where(x >= least, one, -one)

    def kept(self, key: Any, make: Any) -> Any:
        """What is made from the layer's tensors once, and again when they are others; never part of a file."""
        parts = (self.codes, self.threshold, self.scale, *(() if self.bias is None else (self.bias,)))
        now = (self.codes._version, *(part.data_ptr() for part in parts))
        if self._ready.get("of") != now:
            self._ready = {"of": now}
        if key not in self._ready:
            self._ready[key] = make()
        return self._ready[key]

    def _shift(self) -> Tensor:
        return torch.zeros_like(self.scale) if self.bias is None else self.bias

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": {}}

    def extra_repr(self) -> str:
        return f"1 bit {self.shape}"


class BinaryConv(PackedSigns):
    """Convolution of 1 or 2 dimensions with signs, (B, C, [H,] W) -> (B, O, [H',] W'): zeros lie around the image.

    stride, padding, dilation: of each dimension.
    """

    def __init__(
        self,
        weight: Tensor,
        threshold: Tensor,
        scale: Tensor,
        bias: Tensor | None = None,
        stride: tuple[int, ...] = (1, 1),
        padding: tuple[int, ...] = (0, 0),
        dilation: tuple[int, ...] = (1, 1),
    ) -> None:
        super().__init__(weight, threshold, scale, bias)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    @property
    def window(self) -> xnor.Window:
        """In two dimensions; one has a height of 1."""
        flat = len(self.shape) == 3
        two = lambda values, first: (first, *values) if flat else tuple(values)
        return xnor.Window(
            two(self.shape[2:], 1), two(self.stride, 1), two(self.padding, 0), two(self.dilation, 1)
        )

    def sums(self, x: Tensor) -> Tensor:
        """Whole numbers (B, O, [H',] W'), in the form on floats."""
        convolve = F.conv1d if len(self.shape) == 3 else F.conv2d
        return convolve(self.signs(x), self.weight(), None, self.stride, self.padding, self.dilation)

    def forward(self, x: Tensor) -> Tensor:
        if not xnor.serves(x) or x.dim() != len(self.shape):
            return self.finished(self.sums(x))
        image = x.unsqueeze(2) if x.dim() == 3 else x
        size = tuple(image.shape[2:])
        out = xnor.binary_conv(image, *self.kept(size, lambda: self._held(size)))
        return out.squeeze(2) if x.dim() == 3 else out

    def _held(self, size: tuple[int, ...]) -> tuple[xnor.Held, tuple[int, ...]]:
        """For images of this size."""
        kernel, window = self.weight(), self.window
        kernel = kernel.unsqueeze(2) if len(self.shape) == 3 else kernel
        words, borders = xnor.convolution_words(kernel), xnor.borders(kernel, window, size)
        held = xnor.Held.of(self.threshold, words, *borders, self.scale, self._shift())
        return held, tuple(n for part in window for n in part)


class BinaryLinear(PackedSigns):
    """Linear layer with signs, (..., C) -> (..., O)."""

    def sums(self, x: Tensor) -> Tensor:
        """Whole numbers (..., O), in the form on floats."""
        return F.linear(self.signs(x), self.weight())

    def forward(self, x: Tensor) -> Tensor:
        if not xnor.serves(x):
            return self.finished(self.sums(x))
        held = self.kept("held", self._held)
        return xnor.binary_linear(x.reshape(-1, x.shape[-1]), held).view(*x.shape[:-1], -1)

    def _held(self) -> xnor.Held:
        words = xnor.packed(self.weight()).t().contiguous()
        return xnor.Held.of(self.threshold, words, self.scale, self._shift())
