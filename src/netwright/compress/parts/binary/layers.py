"""A layer that learns to work with signs, and what becomes of it: bits, thresholds and scales."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from netwright.compress.parts.binary.find import found, padding_of, rectifiers
from netwright.compress.parts.binary.operators import Operator, OutputScale, PlaceScales, Site
from netwright.core.errors import NotApplicable
from netwright.core.graph.trace import trace
from netwright.core.measure.cost import macs
from netwright.core.network import clone, device_of, evaluating, seeded
from netwright.core.taps import watching
from netwright.core.task import Task
from netwright.core.weights.binary import BinaryConv, BinaryLinear, PackedSigns
from netwright.core.weights.fold import swap
from netwright.core.weights.recalibrate import recalibrate


def learning(network: nn.Module, task: Task, operator: Operator, seed: int) -> nn.Module:
    """A copy in which layers learn by an operator, from the weights that they have; batch statistics are measured anew.

    NotApplicable where no layer can, or the network is not float32.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise NotApplicable(f"the network holds {tensor.dtype}; turn it into float32 first")
    network = clone(network)
    graph = trace(network, task.example(2))
    places = {place.name: place.places for place in found(network, graph)}
    relus = rectifiers(network, graph) if operator.rectifiers else {}

    def made(name: str, layer: nn.Module) -> nn.Module:
        device = next(network.parameters()).device
        new = Rectifier(relus[name]) if name in relus else Learned(layer, operator, places[name])
        return new.to(device)

    with seeded(seed):
        network = swap(network, lambda name, _: name in places or name in relus, made)
    recalibrate(network, task.train, seed=seed)
    return network.eval()


class Learned(nn.Module):
    """A convolution of 1 or 2 dimensions or a linear layer on signs of its normalised inputs, while it is trained.

    Inputs are centred and scaled by batch norm without a scale and shift of its own, as XNOR-Net orders it: what comes
    from a ReLU has no sign worth knowing otherwise.
    """

    def __init__(self, layer: Any, operator: Operator, places: tuple[int, ...]) -> None:
        """places: the sizes of the layer's output behind the channels; () for a linear layer."""
        super().__init__()
        weight = layer.weight.detach()
        self.axis = 1 if places else -1
        site = Site(weight, self.axis, places)
        self.norm = (nn.BatchNorm2d if len(places) == 2 else nn.BatchNorm1d)(site.inputs, affine=False)
        self.bias = layer.bias
        self.weight = nn.Parameter(weight.clone())
        parametrize.register_parametrization(self, "weight", operator.weight(site))
        self.inputs = operator.inputs(site)
        self.scale = OutputScale(site.sizes, self.axis) if operator.scale else None
        self.places = PlaceScales(places) if operator.places and places else None
        self.settings = (layer.stride, padding_of(layer), layer.dilation) if places else ()
        self.sizes = Sizes(tuple(weight.shape[2:]), self.settings) if operator.mean else None

    def normed(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.axis == 1 else self.norm(x.reshape(-1, x.shape[-1])).view_as(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.normed(x)
        signs = self.inputs(x)
        if self.axis == 1:
            convolve = F.conv2d if self.weight.dim() == 4 else F.conv1d
            y = convolve(signs, self.weight, None, *self.settings)
        else:
            y = F.linear(signs, self.weight)
        for scaled in (self.scale, self.places):
            y = y if scaled is None else scaled(y)
        if self.sizes is not None:
            y = y * self.sizes(x)
        return y if self.bias is None else y + self.bias.view(-1, *[1] * (self.weight.dim() - 2))

    @torch.no_grad()
    def packed(self) -> nn.Module:
        """The layer with bits. Where outputs are scaled by more than a number each, that stands around it."""
        weight = self.weight
        rows = weight.flatten(1)
        scale = rows.abs().amax(1)
        if self.scale is not None:
            scale = scale * self.scale.scale
        threshold = weight.new_zeros(weight.shape[1])
        around = self.sizes is not None or self.places is not None
        if self.sizes is None:
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            spread = (self.norm.running_var.double() + self.norm.eps).sqrt()
            shift = getattr(self.inputs, "shift", threshold).double()
            threshold = (self.norm.running_mean.double() - shift * spread).to(weight.dtype)
        bias = None if around else self.bias
        made: nn.Module
        if self.axis == 1:
            made = BinaryConv(weight, threshold, scale, bias, *self.settings)
        else:
            made = BinaryLinear(weight, threshold, scale, bias)
        if around:
            norm = self.norm if self.sizes is not None else None
            made = Around(made, norm, self.sizes, self.places, self.bias, self.axis)
        return made.eval()


class Sizes(nn.Module):
    """Mean |x| of what each output is computed from: (B, 1, ...) of (B, C, ...), (..., 1) of (..., C). No gradient."""

    def __init__(self, kernel: tuple[int, ...], settings: tuple[Any, ...]) -> None:
        super().__init__()
        self.kernel, self.settings = kernel, settings

    def forward(self, x: Tensor) -> Tensor:
        size = x.detach().abs()
        if not self.kernel:
            return size.mean(-1, keepdim=True)
        size = size.mean(1, keepdim=True)
        box = torch.ones(1, 1, *self.kernel, dtype=x.dtype, device=x.device)
        convolve = F.conv2d if len(self.kernel) == 2 else F.conv1d
        return convolve(size, box / box.numel(), None, *self.settings)


class Around(nn.Module):
    """A layer with bits, whose outputs are scaled by the sizes of normalised inputs, or by place; then the bias."""

    def __init__(
        self, layer: nn.Module, norm: nn.Module | None, sizes: nn.Module | None, places: nn.Module | None,
        bias: nn.Parameter | None, axis: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layer, self.norm, self.sizes, self.places, self.axis = layer, norm, sizes, places, axis
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is not None:
            x = self.norm(x) if self.axis == 1 else self.norm(x.reshape(-1, x.shape[-1])).view_as(x)
        y = self.layer(x)
        if self.sizes is not None:
            y = y * self.sizes(x)
        if self.places is not None:
            y = self.places(y)
        return (
            y if self.bias is None else y + self.bias.view(-1, *[1] * (y.dim() - 2 if self.axis == 1 else 0))
        )


class Rectifier(nn.Module):
    """ReActNet's RPReLU, (B, C, ...): shifted, a learned slope below 0, shifted again; numbers for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before, self.after = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        spread = (-1, *[1] * (x.dim() - 2))
        return F.prelu(x - self.before.view(spread), self.slope) + self.after.view(spread)


def packed(network: nn.Module) -> nn.Module:
    """A copy for inference whose learned layers have become bits. Outputs are equal up to rounding."""
    return swap(network, lambda _, m: isinstance(m, Learned), lambda _, m: m.packed()).eval()  # type: ignore[operator]


def counts(network: nn.Module, example: tuple[Tensor, ...]) -> tuple[int, int, int]:
    """Weights that are signs in a packed network, the products that they take part in for one example, and all
    products."""
    signs = {name: m for name, m in network.named_modules() if isinstance(m, PackedSigns)}
    products = 0

    def observe(name: str, output: Tensor) -> None:
        nonlocal products
        shape = signs[name].shape
        products += output.numel() * math.prod(shape[1:])

    one = tuple(t[:1].to(device_of(network)) for t in example)
    with evaluating(network), torch.no_grad(), watching(network, list(signs), observe):
        network(*one)
    return sum(math.prod(m.shape) for m in signs.values()), products, macs(network, one)
