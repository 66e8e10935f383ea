"""The layers of a feed-forward whose channels are switched off by thresholds, and of attention on large inputs alone.

Each stands where a linear layer stood, so that the code around it stays as it is, caches and all. Many rows at once go
through the masked form, which is dense; a single row through kernels that read only what they need. The two give the
same outputs up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.weights import kernels

# activation -> its function, and what it is 0 at
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "silu": (F.silu, 0.0),
    "gelu": (F.gelu, 0.0),
    "gelu-tanh": (lambda z: F.gelu(z, approximate="tanh"), 0.0),
    "relu": (F.relu, 0.0),
    "mish": (F.mish, 0.0),
    "hardswish": (F.hardswish, 0.0),
    "tanh": (torch.tanh, 0.0),
    "sigmoid": (torch.sigmoid, -torch.inf),
}


_ANY = torch.tensor(torch.finfo(torch.float32).tiny)  # what all but zeros reach


class Handed:
    """The channels that a gate has just found active, for the layer beside it that is given the same input."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, Tensor] | None = None

    def give(self, x: Tensor, active: Tensor) -> None:
        self._last = x, active

    def take(self, x: Tensor) -> Tensor | None:
        """Once; None where the gate has not seen this very input."""
        last, self._last = self._last, None
        return last[1] if last is not None and last[0] is x else None


class _Linear(nn.Module):
    """The weight (O, I) and bias (O,) of a linear layer, under their old names."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def extra_repr(self) -> str:
        out, into = self.weight.shape
        return f"in_features={into}, out_features={out}, bias={self.bias is not None}"


class Gate(_Linear):
    """x (..., I) -> z = W x + b (..., H), with what its activation makes 0 of in every channel where
    |activation(z)| < threshold (H,)."""

    threshold: Tensor

    def __init__(self, linear: nn.Linear, activation: str, threshold: Tensor, beside: Handed) -> None:
        super().__init__(linear)
        self.activation, self.beside = activation, beside
        self.register_buffer("threshold", threshold)

    def forward(self, x: Tensor) -> Tensor:
        z = F.linear(x, self.weight, self.bias)
        if kernels.serves(x, self.weight):
            self.beside.give(x, _switched_off(z, self.activation, self.threshold))
            return z
        return torch.where(_kept(z, self.activation, self.threshold), z, ACTIVATIONS[self.activation][1])

    def active(self, x: Tensor) -> Tensor:
        """Which channels are (..., H), for inputs (..., I)."""
        return _kept(F.linear(x, self.weight, self.bias), self.activation, self.threshold)


class Up(_Linear):
    """x (..., I) -> W x + b (..., H). Of a single row only in the channels that the gate left active, b elsewhere,
    which makes no difference: they are multiplied with 0."""

    def __init__(self, linear: nn.Linear, gate: Handed) -> None:
        super().__init__(linear)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        active = self.gate.take(x) if kernels.serves(x, self.weight) else None
        if active is None:
            return F.linear(x, self.weight, self.bias)
        return _some_rows(x, self.weight, self.bias, active)


class GateAndUp(_Linear):
    """Gate and up projection of one weight (2H, I), halves of the output: x (..., I) -> (..., 2H). gate_first: whether
    the gate is the first half."""

    threshold: Tensor

    def __init__(self, linear: nn.Linear, activation: str, threshold: Tensor, gate_first: bool) -> None:
        super().__init__(linear)
        self.activation, self.gate_first = activation, gate_first
        self.register_buffer("threshold", threshold)

    def forward(self, x: Tensor) -> Tensor:
        (w_gate, b_gate), (w_up, b_up) = self._halves()
        z = F.linear(x, w_gate, b_gate)
        if kernels.serves(x, self.weight):
            u = _some_rows(x, w_up, b_up, _switched_off(z, self.activation, self.threshold))
        else:
            u = F.linear(x, w_up, b_up)
            z = torch.where(_kept(z, self.activation, self.threshold), z, ACTIVATIONS[self.activation][1])
        return torch.cat([z, u] if self.gate_first else [u, z], -1)

    def _halves(self) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
        """Weight and bias of the gate, and of the up projection."""
        weights = self.weight.chunk(2)
        biases = (None, None) if self.bias is None else self.bias.chunk(2)
        first, second = zip(weights, biases, strict=True)
        return (first, second) if self.gate_first else (second, first)

    def active(self, x: Tensor) -> Tensor:
        """Which channels are (..., H), for inputs (..., I)."""
        weight, bias = self._halves()[0]
        return _kept(F.linear(x, weight, bias), self.activation, self.threshold)


class SparseInput(_Linear):
    """x (..., I) -> W x + b (..., O), inputs with |x| < threshold (), if there is one, taken for 0; of a single row,
    columns of inputs that are 0 are not read. The weight lies column by column in memory."""

    threshold: Tensor | None

    def __init__(self, linear: nn.Linear, threshold: Tensor | None = None) -> None:
        super().__init__(linear)
        turned = linear.weight.detach().t().contiguous().t()
        self.weight = nn.Parameter(turned, requires_grad=linear.weight.requires_grad)
        self.register_buffer("threshold", threshold)

    def forward(self, x: Tensor) -> Tensor:
        if kernels.serves(x, self.weight):
            least = _ANY if self.threshold is None else self.threshold
            out = kernels.some_columns(self.weight.t(), x.reshape(-1), least)
            return (out if self.bias is None else out + self.bias).view(*x.shape[:-1], -1)
        if self.threshold is not None:
            x = torch.where(self.active(x), x, 0.0)
        return F.linear(x, self.weight, self.bias)

    def active(self, x: Tensor) -> Tensor:
        """Which inputs count (..., I)."""
        return x != 0 if self.threshold is None else x.abs() >= self.threshold


def _kept(z: Tensor, activation: str, threshold: Tensor) -> Tensor:
    return ACTIVATIONS[activation][0](z).abs() >= threshold


def _switched_off(z: Tensor, activation: str, threshold: Tensor) -> Tensor:
    """What a single row z (..., H) keeps, (H,); the rest of z is switched off, in place."""
    function, off = ACTIVATIONS[activation]
    return kernels.switch_off(z.view(-1), function(z).view(-1), threshold, off)


def _some_rows(x: Tensor, weight: Tensor, bias: Tensor | None, keep: Tensor) -> Tensor:
    """x (..., I), a single row, by the rows of weight (O, I) that are kept: (..., O), 0 (or the bias) elsewhere."""
    out = kernels.some_rows(weight, x.reshape(-1), keep)
    return (out if bias is None else out + bias).view(*x.shape[:-1], -1)
