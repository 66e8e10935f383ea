"""Eight ways to turn weights and inputs into signs: the values in the forward pass, and what stands for the gradient.

Each operator is three parts of a layer: a parametrisation of its weight (latent weights (O, C, ...) -> +-scale), what
its inputs pass, and what its outputs pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.weights.signs import Sines, Slope, clipped, quadratic, sign, straight


def _channels(w: Tensor, values: Tensor) -> Tensor:
    """values (O,), to be multiplied with w (O, ...)."""
    return values.view(-1, *[1] * (w.dim() - 1))


def _sizes(w: Tensor) -> Tensor:
    """Mean |w| of each output's weights (O, 1, ...)."""
    return _channels(w, w.detach().abs().flatten(1).mean(1))


def _sized(signs: Tensor, scale: Tensor) -> Tensor:
    """scale x signs, with the gradient of the signs alone: a slope says what becomes of it."""
    return (scale * signs).detach() + (signs - signs.detach())


class _Weight(nn.Module):
    """A parametrisation of a weight: the latent one is what is learned, and starts as the weight that was there."""

    def right_inverse(self, w: Tensor) -> Tensor:
        return w


class Plain(_Weight):
    """sign(w); the gradient stops beyond 1."""

    def forward(self, w: Tensor) -> Tensor:
        return sign(w, clipped)


class Scaled(_Weight):
    """a sign(w), a the mean |w| of the output's weights. The gradient of w is that of the product, multiplied by
    factor(w, a)."""

    def __init__(self, factor: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, w: Tensor) -> Tensor:
        scale = _sizes(w)
        return _sized(sign(w, lambda w: self.factor(w, scale)), scale)


def xnor_factor(w: Tensor, scale: Tensor) -> Tensor:
    """1 / n + a where |w| <= 1, 1 / n elsewhere, n the weights of an output: eq. 10 of XNOR-Net (arXiv 1603.05279)."""
    return 1 / w[0].numel() + scale * clipped(w)


def bireal_factor(w: Tensor, scale: Tensor) -> Tensor:
    """a where |w| <= 1: the gradient knows how large weights are (Bi-Real Net, arXiv 1808.00278)."""
    return scale * clipped(w)


def unscaled(w: Tensor, scale: Tensor) -> Tensor:
    """1 where |w| <= 1 (ReActNet, arXiv 2003.03488, as in its authors' code)."""
    return clipped(w)


class Layerwise(_Weight):
    """E sign(w), E the mean |w| of the whole layer; the gradient passes unchanged (DoReFa-Net, arXiv 1606.06160)."""

    def forward(self, w: Tensor) -> Tensor:
        return _sized(sign(w, straight), w.detach().abs().mean())


class Revived(_Weight):
    """Centred, scaled to a deviation of 2 sqrt(2), cut off at the quantiles t and 1 - t of a Laplace distribution, then
    the sign with its gradient unchanged (ReCU, arXiv 2103.12369): weights far out come back within reach.

    t goes from 0.85 to 0.99, exponentially.
    """

    tau: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("tau", torch.tensor(0.85))

    def advance(self, done: float) -> None:
        grown = (math.exp(done) - 1) / (math.e - 1)
        self.tau.fill_(0.85 + (0.99 - 0.85) * grown)

    def forward(self, w: Tensor) -> Tensor:
        rows = w.flatten(1)
        rows = rows - rows.mean(1, keepdim=True)
        spread = (rows.var(1, keepdim=True, correction=1 if rows.shape[1] > 1 else 0) + 1e-5).sqrt()
        rows = rows / (spread / (2 * math.sqrt(2)))
        end = -rows.detach().abs().mean() * torch.log(2 - 2 * self.tau)
        return sign(torch.clamp(rows, -end, end), straight).view_as(w)


class _Noise(nn.Module):
    """w -> W2 relu(W1 w) + sin(w) / 10 along a dimension of n values, by way of n / 64 (FDA's noise adaptation)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        inner = max(1, size // 64)
        self.into, self.out = nn.Linear(size, inner, bias=False), nn.Linear(inner, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.into(x))) + 0.1 * x.sin()


class _Fading(nn.Module):
    """FDA's schedules: 9 to 18 sines; noise of weight 0.05 (1 + cos(pi done)), which training alone sees."""

    weight: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.noise, self.slope = _Noise(size), Sines()
        self.register_buffer("weight", torch.tensor(0.1))

    def advance(self, done: float) -> None:
        self.slope = Sines(9 + int(9 * done))
        self.weight.fill_(0.05 * (1 + math.cos(math.pi * done)))

    def signs(self, x: Tensor, rows: Callable[[Tensor], Tensor]) -> Tensor:
        """rows: applies the noise along the right dimension."""
        signs = sign(x, self.slope)
        return signs + self.weight * rows(x) if self.training else signs


class SineWeight(_Fading):
    """a sign(w) with the slope of its Fourier series, a the mean |w| of the output's weights."""

    def forward(self, w: Tensor) -> Tensor:
        return _sizes(w) * self.signs(w, lambda w: self.noise(w.flatten(1)).view_as(w))

    def right_inverse(self, w: Tensor) -> Tensor:
        return w


class SineInput(_Fading):
    """Signs of (B, C, ...), or (..., C), with the slope of their Fourier series."""

    def __init__(self, size: int, axis: int) -> None:
        super().__init__(size)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return self.signs(x, lambda x: self.noise(x.movedim(self.axis, -1)).movedim(-1, self.axis))


class Signs(nn.Module):
    """Signs of inputs, with this slope."""

    def __init__(self, slope: Slope) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return sign(x, self.slope)


class ShiftedSigns(nn.Module):
    """Signs of inputs plus a learned number for each channel (ReActNet's RSign), with Bi-Real Net's slope."""

    def __init__(self, size: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.shift = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        spread = [1] * x.dim()
        spread[self.axis] = -1
        return sign(x + self.shift.view(spread), quadratic)


class OutputScale(nn.Module):
    """Sums (B, O, ...), or (..., O), times a learned number for each output; starts at mean |w|."""

    def __init__(self, scale: Tensor, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.scale = nn.Parameter(scale.clone())

    def forward(self, y: Tensor) -> Tensor:
        spread = [1] * y.dim()
        spread[self.axis] = -1
        return y * self.scale.view(spread)


class PlaceScales(nn.Module):
    """Times a learned number for each row and one for each column of (B, O, H, W), or each place of (B, O, L)."""

    def __init__(self, places: tuple[int, ...]) -> None:
        super().__init__()
        spread = [(n, *[1] * (len(places) - 1 - i)) for i, n in enumerate(places)]
        self.scales = nn.ParameterList([torch.ones(shape) for shape in spread])

    def forward(self, y: Tensor) -> Tensor:
        for scale in self.scales:
            y = y * scale
        return y


@dataclass(frozen=True)
class Site:
    """The layer that an operator is put into. weight (O, C, ...); axis: of its inputs' and outputs' channels; places:
    the sizes of its output behind the channels, () for linear layers."""

    weight: Tensor
    axis: int
    places: tuple[int, ...]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]

    @property
    def sizes(self) -> Tensor:
        return _sizes(self.weight).reshape(-1)


@dataclass(frozen=True)
class Operator:
    """weight, inputs: modules for a site. scale: of the outputs, learned, folded into the scale of the signs' sums;
    places: learned for rows and columns too. mean: outputs are multiplied by the mean |x| of what they were computed
    from. rectifiers: whether ReLUs learn a slope and shifts."""

    weight: Callable[[Site], nn.Module]
    inputs: Callable[[Site], nn.Module]
    scale: bool = False
    places: bool = False
    mean: bool = False
    rectifiers: bool = False


def _inputs(slope: Slope) -> Any:
    return lambda site: Signs(slope)


OPERATORS: dict[str, Operator] = {
    "bnn": Operator(lambda site: Plain(), _inputs(clipped)),
    "xnor": Operator(lambda site: Scaled(xnor_factor), _inputs(clipped), mean=True),
    "dorefa": Operator(lambda site: Layerwise(), _inputs(clipped)),
    "bireal": Operator(lambda site: Scaled(bireal_factor), _inputs(quadratic)),
    "xnor++": Operator(lambda site: Plain(), _inputs(clipped), scale=True, places=True),
    "react": Operator(
        lambda site: Scaled(unscaled), lambda site: ShiftedSigns(site.inputs, site.axis), rectifiers=True
    ),
    "recu": Operator(lambda site: Revived(), _inputs(quadratic), scale=True),
    "fda": Operator(
        lambda site: SineWeight(site.weight[0].numel()), lambda site: SineInput(site.inputs, site.axis)
    ),
}  # fmt: skip
