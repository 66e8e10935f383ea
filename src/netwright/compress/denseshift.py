"""DenseShift: weights that are +-1, +-2, +-4 or +-8 times a scale, and never 0 (arXiv 2208.09708)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from netwright.compress.parts.binary.find import found
from netwright.compress.parts.int8 import prepared
from netwright.compress.parts.int8_graph import attribute
from netwright.compress.parts.weights import Rounded, packed, simulated
from netwright.core import progress
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit, State
from netwright.core.graph.trace import trace
from netwright.core.network import clone, seeded
from netwright.core.task import Task
from netwright.core.weights.grids import Integers
from netwright.core.weights.parametrise import bake
from netwright.core.weights.recalibrate import recalibrate


@dataclass(frozen=True)
class DenseShift:
    """Train a network whose weights are powers of two with a sign, so that products become additions of exponents.

    DenseShift: Towards Accurate and Transferable Low-Bit Shift Network (ICCV 2023, arXiv 2208.09708). A weight of
    `bits` bits is sign(s) * 2^P from latent weights s and t_1 ... t_n, n = 2^(bits-1) - 1; for 3 bits P = ((H(t_1) + 1)
    H(t_2) + 1) H(t_3), H(t) = 1 where t > 0. Zero is no value, so that no weight can die. Signs and steps pass their
    gradient unchanged; that of the weight is taken of sign * sqrt(P + 1) in place of sign * 2^P, which would make the
    largest weights move most.

    The first and the last layer of every path stay real, and so do layers that run twice, and grouped convolutions.
    start: 'random' gives latent weights of deviation `spread` around 0, as the paper does; 'given' too, but with the
    signs that encode the given weights, so that these are where training starts, yet none is frozen. Nothing decays:
    decay would draw latents to 0, where they flicker. What share of weights kept sign and code in the last quarter of
    the training is remarked.

    Where we differ: each output has a learned scale, since a network need not have batch norm to absorb it.

    Gives a network whose batch norms are folded and whose weights are `PackedBits` of `bits` bits with a scale for each
    output; `pair` also gives its twin in float, equal to the bit. It computes in float: on a processor that multiplies
    as fast as it adds, shifts gain nothing, and what this saves is bytes. Raises NotApplicable where no layer is left.
    """

    bits: int = 3
    start: Literal["random", "given"] = "random"
    spread: float = 1e-3
    epochs: float = 200
    batch_size: int = 128
    optimiser: Literal["adamw", "sgd"] = "sgd"
    lr: float = 0.1
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        return self.pair(network, task, budget)[1]

    def pair(self, network: nn.Module, task: Task, budget: Budget) -> tuple[nn.Module, nn.Module]:
        """The trained network in float, its weights sums of powers of two times scales, and the packed one."""
        meter = budget.start()
        learning, names = self.learning(network, task)
        fit = Fit(
            epochs=self.epochs, batch_size=self.batch_size, optimiser=self.optimiser, lr=self.lr,
            weight_decay=0.0, seed=self.seed,
        )  # fmt: skip
        if not meter.exhausted:
            kept = Kept(learning, 0.75 * fit.epochs)
            fit(learning, task, meter=meter, on_step=kept)
            if kept.codes:
                progress.remark(f"{100 * kept.share:.1f} % of weights kept their value in the last quarter")
        module = prepared(bake(learning), task)
        rounded = {path: code(attribute(module, path).detach(), self.bits) for path in _paths(module, names)}
        return simulated(clone(module), rounded, {}), packed(clone(module), rounded, {})

    def learning(self, network: nn.Module, task: Task) -> tuple[nn.Module, list[str]]:
        """A copy with latent weights, and the names of the layers that have them."""
        if not 2 <= self.bits <= 4:
            raise BadInput(f"shift weights have 2 to 4 bits, not {self.bits}")
        if self.start not in ("random", "given"):
            raise BadInput(f"training starts from 'random' or 'given' weights, not '{self.start}'")
        if any(t.is_floating_point() and t.dtype != torch.float32 for t in network.parameters()):
            raise NotApplicable("the network is not float32; turn it into that first")
        made = clone(network)
        names = [place.name for place in found(made, trace(made, task.example(2)))]
        with seeded(self.seed):
            for name in names:
                shifts = Shifts(2 ** (self.bits - 1), self.spread, self.start == "given")
                parametrize.register_parametrization(made.get_submodule(name), "weight", shifts)
        recalibrate(made, task.train, seed=self.seed)
        return made, names


class Shifts(nn.Module):
    """A parametrisation: a scale (O, 1, ...), latents s, t_1 ... t_n of the weight's shape -> scale * sign(s) * 2^P."""

    def __init__(self, levels: int, spread: float, given: bool) -> None:
        """levels: of P, 0 to levels - 1. given: whether latents encode the weight that is there."""
        super().__init__()
        self.levels, self.spread, self.given = levels, spread, given

    def forward(self, scale: Tensor, sign: Tensor, *steps: Tensor) -> Tensor:
        s, p = _sign(sign), torch.zeros_like(sign)
        for i, t in enumerate(steps):
            p = (p + 1 if i else torch.ones_like(p)) * _step(t)
        value, slope = s * torch.exp2(p), s * (p + 1).sqrt()
        return scale * (value.detach() + (slope - slope.detach()))

    def right_inverse(self, w: Tensor) -> Sequence[Tensor]:
        size = w.abs().flatten(1)
        latents = [self.spread * torch.randn(w.shape).to(w) for _ in range(self.levels)]
        shape = (-1, *[1] * (w.dim() - 1))
        if not self.given:
            # as large, on average, as what was there: codes are equally likely up to the steps that hide others
            ones = torch.ones(1).to(w)
            typical = self.forward(ones, *(t.reshape(-1) for t in latents)).pow(2).mean().sqrt()
            return (size.pow(2).mean(1).sqrt() / typical).view(shape), *latents
        scale = (size.amax(1) / 2 ** (self.levels - 1)).clamp_min(1e-8).view(shape)
        p = (w.abs() / scale).clamp_min(1e-8).log2().round().clamp(0, self.levels - 1)
        sign = torch.where(w >= 0, latents[0].abs(), -latents[0].abs())
        # the last p steps are 1, the one before them 0
        count = self.levels - 1
        steps = [torch.where(count - j <= p, t.abs(), -t.abs()) for j, t in enumerate(latents[1:])]
        return scale, sign, *steps


def _sign(x: Tensor) -> Tensor:
    """-1 where x < 0, else 1, with x's gradient."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype) + (x - x.detach())


def _step(x: Tensor) -> Tensor:
    """1 where x > 0, else 0, with x's gradient."""
    return (x > 0).to(x.dtype) + (x - x.detach())


def code(weight: Tensor, bits: int) -> Rounded:
    """A weight whose rows are +-2^P times a scale each, (O, ...), as integers: exactly those values."""
    rows = weight.flatten(1)
    powers = torch.exp2(torch.arange(2 ** (bits - 1), dtype=rows.dtype, device=rows.device))
    levels = torch.cat([-powers.flip(0), powers])
    scale = rows.abs().amax(1, keepdim=True) / powers[-1]
    scale = torch.where(scale > 0, scale, 1.0)
    middle = (levels[1:] + levels[:-1]) / 2
    codes = torch.searchsorted(middle, (rows / scale).contiguous()).to(torch.int32)
    twin = Integers(codes, scale, torch.zeros_like(codes[:, :1]), levels.expand(len(rows), -1))
    return Rounded(twin, bits, twin.values().view_as(weight).contiguous())


def _paths(module: fx.GraphModule, names: Sequence[str]) -> list[str]:
    """Names of these layers' weights in the traced network."""
    held = dict(module.named_parameters())
    return [path for path in (f"{name}.weight" for name in names) if path in held]


class Kept:
    """Watches a training from an epoch on: which weights keep sign and code at every step."""

    def __init__(self, network: nn.Module, since: float) -> None:
        self.since = since
        self.layers: list[Any] = [
            m.parametrizations["weight"]  # type: ignore[index]
            for m in network.modules()
            if parametrize.is_parametrized(m, "weight")
            and isinstance(m.parametrizations["weight"][0], Shifts)  # type: ignore[index]
        ]
        self.codes: list[Tensor] = []
        self.same: list[Tensor] = []

    def __call__(self, state: State) -> None:
        if state.meter.epochs < self.since:
            return
        now = [torch.sign(layer().detach()) * 2 ** _exponent(layer) for layer in self.layers]
        if not self.codes:
            self.same = [torch.ones_like(c, dtype=torch.bool) for c in now]
        else:
            self.same = [s & (a == b) for s, a, b in zip(self.same, self.codes, now, strict=True)]
        self.codes = now

    @property
    def share(self) -> float:
        """Of the weights that have kept their value since."""
        return sum(int(s.sum()) for s in self.same) / sum(s.numel() for s in self.same)


def _exponent(layer: Any) -> Tensor:
    """P of each weight."""
    scale = getattr(layer, "original0").detach()  # noqa: B009  made by torch under this name
    return (layer().detach() / scale).abs().log2().round()
