"""Layers whose weights really are 8-bit integers, and the operators around them.

Their forward pass does in float what the integer kernels do: values are rounded to the same grids, so that
ONNX Runtime, which gets these layers as QuantizeLinear and DequantizeLinear pairs and fuses them to integer
kernels, gives the same results up to one step of a grid where a sum falls on the border between two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from netwright.core.weights.grids import Integers

_int8 = torch.ops.quantized_decomposed


class _FakeRound(torch.autograd.Function):
    """Round trip through uint8; the gradient passes where the value lies inside the grid."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, zero: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.ends = (-zero * scale, (255 - zero) * scale)
        codes = _int8.quantize_per_tensor.default(x, scale, zero, 0, 255, torch.uint8)
        return _int8.dequantize_per_tensor.default(codes, scale, zero, 0, 255, torch.uint8)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        low, high = ctx.ends
        return gradient * ((x >= low) & (x <= high)), None, None


class Rounding(nn.Module):
    """x (...) rounded to scale * (0..255 - zero): QuantizeLinear and DequantizeLinear in ONNX."""

    def __init__(self, scale: float, zero: int) -> None:
        super().__init__()
        self.scale, self.zero = scale, zero

    def forward(self, x: Tensor) -> Tensor:
        return _FakeRound.apply(x, self.scale, self.zero)

    def extra_repr(self) -> str:
        return f"scale={self.scale:.6g}, zero={self.zero}"


def dynamic_arithmetic(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """What `dynamic_linear` computes."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    step = (high - low) / 255
    step = torch.where(step > 0, step, 1.0)
    zero = (-low / step).round().clamp(0, 255)
    codes = ((x / step).round() + zero).clamp(0, 255) - zero
    exact = torch.float32 if x.shape[-1] * 255 * 127 < 2**24 else torch.float64  # sums of integers stay exact
    total = F.linear(codes.to(exact), weight.to(exact)).to(x.dtype)
    return total * (step * scale)


@torch.library.custom_op("netwright::dynamic_linear", mutates_args=())
def dynamic_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (..., I) by weight (O, I) int8 with scale (O,): x is rounded to uint8 over its own range, then integers.

    As ONNX's DynamicQuantizeLinear and MatMulInteger do it: one range for the whole tensor, the batch included.
    """
    return dynamic_arithmetic(x, weight, scale)


@dynamic_linear.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1], inputs[2])


def _straight(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    weight, scale = ctx.saved_tensors
    return (gradient * scale) @ weight.to(gradient.dtype), None, None


dynamic_linear.register_autograd(_straight, setup_context=_save)


@register_flop_formula(torch.ops.netwright.dynamic_linear)
def _flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    rows = 1
    for size in x[:-1]:
        rows *= size
    return 2 * rows * weight[0] * weight[1]


def _dynamic_linear_in_onnx(x: Any, weight: Any, scale: Any) -> Any:
    from onnxscript import opset20

    op: Any = opset20

    codes, step, zero = op.DynamicQuantizeLinear(x)
    columns = op.Transpose(weight, perm=[1, 0])
    total = op.MatMulInteger(codes, columns, zero, op.CastLike(op.Constant(value_int=0), columns))
    return op.Mul(op.Cast(total, to=1), op.Mul(step, scale))


# operators of ours -> how ONNX writes them, for torch.onnx.export's custom_translation_table
ONNX_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.netwright.dynamic_linear.default: _dynamic_linear_in_onnx
}


class Packed(nn.Module):
    """weight: int8 (O, ...) with one scale per output; bias: float, or int32 in units of the sums (O,)."""

    scale: Tensor
    bias_scale: Tensor

    def __init__(self, weight: Integers, shape: torch.Size, bias: Tensor | None) -> None:
        """weight: the integer twin of a weight of this shape, per output channel. bias: float (O,)."""
        super().__init__()
        self.weight = nn.Parameter(weight.codes.to(torch.int8).view(shape), requires_grad=False)
        self.register_buffer("scale", weight.scale[:, 0].float())
        self.bias: nn.Parameter | None = None
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)

    def pack_bias(self, input_scale: float) -> None:
        """Turn the bias into int32 in units of input scale times weight scale, as integer kernels want it.

        A channel whose own scale is too fine for that (its weights are next to nothing beside its bias) is
        given a coarser one.
        """
        if self.bias is None:
            return
        bias = self.bias.detach()
        least = bias.abs() / (input_scale * 2.0**30)
        coarse = self.scale < least
        weight = self.weight.data.float() * (self.scale / torch.where(coarse, least, self.scale)).view(
            -1, *[1] * (self.weight.dim() - 1)
        )
        self.weight = nn.Parameter(weight.round().to(torch.int8), requires_grad=False)
        self.scale = torch.where(coarse, least, self.scale)
        self.register_buffer("bias_scale", self.scale * input_scale)
        codes = (bias.double() / self.bias_scale.double()).round().to(torch.int32)
        self.bias = nn.Parameter(codes, requires_grad=False)

    def float_weight(self, transposed: bool = False) -> Tensor:
        codes, axis = (self.weight.t(), 1) if transposed else (self.weight, 0)
        zero = torch.zeros_like(self.scale, dtype=torch.int8)
        return _int8.dequantize_per_channel.default(codes, self.scale, zero, axis, -128, 127, torch.int8)

    def float_bias(self) -> Tensor | None:
        if self.bias is None or self.bias.is_floating_point():
            return self.bias
        zero = torch.zeros_like(self.bias)
        return _int8.dequantize_per_channel.default(
            self.bias, self.bias_scale, zero, 0, -(2**31), 2**31 - 1, torch.int32
        )

    def unpacked_weight(self) -> Tensor:
        """The weight for a float operator. ONNX Runtime computes this once, when it loads the file; a
        DequantizeLinear it would compute at every run.
        """
        return self.weight.to(self.scale.dtype) * self.scale.view(-1, *[1] * (self.weight.dim() - 1))

    def extra_repr(self) -> str:
        return f"int8 {tuple(self.weight.shape)}"


class PackedConv(Packed):
    """Convolution of 1 to 3 dimensions with int8 weights, (B, C, ...) -> (B, O, ...).

    settings: stride, padding, dilation and groups, as torch's functional convolutions take them.
    integer: its input is rounded, so that it can run in integers; else it is a float convolution.
    """

    def __init__(
        self,
        weight: Integers,
        shape: torch.Size,
        bias: Tensor | None,
        settings: tuple[Any, ...] = (),
        integer: bool = True,
    ) -> None:
        super().__init__(weight, shape, bias)
        self.settings, self.integer = settings, integer

    def forward(self, x: Tensor) -> Tensor:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.weight.dim() - 3]
        weight = self.float_weight() if self.integer else self.unpacked_weight()
        return convolve(x, weight, self.float_bias(), *self.settings)


class PackedLinear(Packed):
    """Linear layer with int8 weights, (..., I) -> (..., O)."""

    def forward(self, x: Tensor) -> Tensor:
        bias = self.float_bias()
        if x.dim() == 2:  # one Gemm in ONNX
            return F.linear(x, self.float_weight(), bias)
        out = torch.matmul(x, self.float_weight(transposed=True))
        return out if bias is None else out + bias


class DynamicLinear(Packed):
    """Linear layer with int8 weights whose input is rounded to 8 bits over its range of the moment."""

    def forward(self, x: Tensor) -> Tensor:
        out = dynamic_linear(x, self.weight, self.scale)
        return out if self.bias is None else out + self.bias


class PackedEmbedding(Packed):
    """Rows of an int8 table with a scale each, (...) int64 -> (..., width)."""

    def forward(self, index: Tensor) -> Tensor:
        rows = F.embedding(index, self.weight)
        return rows.to(self.scale.dtype) * self.scale[index][..., None]


class PackedWeight(Packed):
    """An int8 weight that a float operator reads, such as a recurrent layer's; () -> the weight (O, ...)."""

    def forward(self) -> Tensor:
        return self.unpacked_weight()
