"""The survey's settings as one Transform: weights of 2 to 8 bits, packed, in a network that computes in float."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, fx, nn

from netwright.compress.parts.equalise import equalise
from netwright.compress.parts.int8 import prepared
from netwright.compress.parts.int8_graph import attribute
from netwright.compress.parts.moments import Moments
from netwright.compress.parts.walk import Walk, calibration, held_at_once
from netwright.compress.parts.weights import Weight, packed, simulated, size, weights
from netwright.compress.quant_survey.mixed import allot, errors, traces
from netwright.compress.quant_survey.rounding import AdaRound
from netwright.compress.quant_survey.synthetic import synthetic
from netwright.compress.quant_survey.training import trained
from netwright.core.budget import Budget, Meter
from netwright.core.errors import BadInput
from netwright.core.fit import Fit
from netwright.core.network import clone
from netwright.core.split import take
from netwright.core.task import Task
from netwright.core.weights.fold import fold
from netwright.core.weights.grids import Codebook, Grid, Integers, PowerOfTwo, Uniform
from netwright.core.weights.parametrise import Quantiser
from netwright.core.weights.ranges import RANGES

MIXED = (2, 3, 4, 6, 8)  # bits that mixed precision chooses from
_MOMENT = 64  # examples of each batch of the Hessian's estimate


@dataclass(frozen=True)
class QuantSurvey:
    """Weights in 2 to 8 bits, packed to the bit; the network computes in float.

    A Survey of Quantization Methods for Efficient Neural Network Inference (arXiv 2103.13630). Of its map is here:

    - grid: 'uniform', of 'powers' of two (products become shifts) or a 'codebook' by k-means. Uniform ones are
      symmetric with all 2^bits codes, or affine.
    - scheme: one scale for each 'tensor', output 'channel', or `group` of so many weights in a row within a channel.
    - range: all values ('minmax'), 99.99 'percentile', least squared error ('mse'), least divergence ('entropy').
    - rounding: to the 'nearest', up or down as learned from data ('adaround', arXiv 2004.10568), or trained on with
      learned scales for `epochs` ('lsq', arXiv 1902.08153).
    - equalise: ranges of channels brought level from layer to layer first; correct: biases make up for the mean error
      (both arXiv 1906.04721). mixed: layers get the bits that cost the loss least at the bytes that `bits` would take,
      by Hessian traces and integer programming (arXiv 1911.03852).
    - data: 'train', or 'synthetic' inputs made up from batch norms, no data at all (arXiv 2001.00281).

    ends: bits of the first and the last layer at least, unless `mixed` chooses. examples: for calibration; fewer where
    their activations would take more than 1 GiB. steps: of AdaRound, for each layer.

    Quantised are convolutions, linear layers, embeddings and recurrent weights; batch norms are folded first. Scales
    are half-precision numbers. Gives a network whose weights are `PackedBits` (core/weights/bits.py); `pair` also gives
    its simulated twin, which has the same weights in float and gives the same outputs to the bit. ONNX Runtime unpacks
    the weights once, as it loads the file, and then runs at the speed of float: what this saves is bytes. For speed
    on a CPU there are static-int8 and dynamic-int8, which round activations too.

    Raises NotApplicable where nothing can be quantised, or nothing can be made up from batch norms; BadInput for
    settings that do not go together. Where we differ from the papers: the parts' own docstrings say it.
    """

    bits: int = 4
    scheme: Literal["tensor", "channel", "group"] = "group"
    group: int = 32
    grid: Literal["uniform", "powers", "codebook"] = "uniform"
    symmetric: bool = True
    range: Literal["minmax", "percentile", "mse", "entropy"] = "mse"
    rounding: Literal["nearest", "adaround", "lsq"] = "adaround"
    equalise: bool = False
    correct: bool = True
    mixed: bool = False
    data: Literal["train", "synthetic"] = "train"
    ends: int = 8
    examples: int = 256
    steps: int = 1000
    epochs: float = 2
    lr: float = 1e-3
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        return self.pair(network, task, budget)[1]

    def pair(self, network: nn.Module, task: Task, budget: Budget) -> tuple[nn.Module, nn.Module]:
        """The simulated network, rounded weights in float, and the packed one."""
        self._check()
        meter = budget.start()
        module = self._traced(network, task)
        found = weights(module)
        bits = self._allotted(module, found, task, meter) if self.mixed else self.uniform(found)
        if self.rounding == "lsq":
            fit = Fit(epochs=self.epochs, lr=self.lr, seed=self.seed)
            made = {path: self.quantiser(b) for path, b in bits.items()}
            rounded, biases = trained(module, made, task, fit, meter), {}
        else:
            walked = self.walk(module, bits, self.inputs(network, module, task, meter), meter)
            rounded, biases = walked.rounded, walked.biases
        return simulated(clone(module), rounded, biases), packed(module, rounded, biases)

    def walk(
        self, module: fx.GraphModule, bits: Mapping[str, int], inputs: tuple[Tensor, ...], meter: Meter
    ) -> Walk:
        """Every weight rounded, by what calibration inputs show. bits: by weight."""
        quantisers = {path: self.quantiser(b) for path, b in bits.items()}
        return Walk(module, quantisers, self._learn(len(bits), meter), self.correct)(inputs)

    def uniform(self, found: list[Weight]) -> dict[str, int]:
        """The same bits for every weight, but for the first and the last layer."""
        ends = {w.path for w in (found[0], *[w for w in found if w.layers][-1:])}
        return {w.path: max(self.bits, self.ends) if w.path in ends else self.bits for w in found}

    def _check(self) -> None:
        if not 2 <= self.bits <= 8:
            raise BadInput(f"weights have 2 to 8 bits here, not {self.bits}")
        if self.range not in RANGES:
            raise BadInput(f"no range named '{self.range}'; use {', '.join(RANGES)}")
        for name, known in (
            ("scheme", ("tensor", "channel", "group")), ("grid", ("uniform", "powers", "codebook")),
            ("rounding", ("nearest", "adaround", "lsq")), ("data", ("train", "synthetic")),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise BadInput(f"no {name} named '{getattr(self, name)}'; use {', '.join(known)}")
        if self.grid != "uniform" and self.rounding != "nearest":
            raise BadInput(
                f"'{self.rounding}' needs a uniform grid; use rounding='nearest' with '{self.grid}'"
            )
        if self.grid != "uniform" and self.mixed:
            raise BadInput("mixed precision needs a uniform grid")
        if self.data == "synthetic" and (self.rounding == "lsq" or self.mixed):
            raise BadInput(
                "made-up inputs have no targets to train on; use rounding='adaround' and mixed=False"
            )

    def _traced(self, network: nn.Module, task: Task) -> fx.GraphModule:
        if self.equalise:
            network = fold(clone(network).cpu(), task.example(2))
            equalise(network, task.example(2))
        return prepared(network, task)

    def inputs(self, network: nn.Module, module: nn.Module, task: Task, meter: Meter) -> tuple[Tensor, ...]:
        """Calibration examples: made up, or drawn from the training split."""
        if self.data == "synthetic":
            count = held_at_once(module, task, self.examples)
            return synthetic(network, task.input_shapes, count, self.seed, meter)
        return calibration(module, task, self.examples, self.seed, meter)

    def quantiser(self, bits: int) -> Quantiser:
        grids: dict[str, Grid] = {
            "uniform": Uniform(bits, self.symmetric, full=self.symmetric, half=True),
            "powers": PowerOfTwo(bits), "codebook": Codebook(bits),
        }  # fmt: skip
        return Quantiser(
            grids[self.grid], RANGES[self.range], "lsq" if self.rounding == "lsq" else "straight",
            None if self.scheme == "tensor" else 0, self.group if self.scheme == "group" else None,
        )  # fmt: skip

    def _allotted(
        self, module: fx.GraphModule, found: list[Weight], task: Task, meter: Meter
    ) -> dict[str, int]:
        """Bits by weight: least tr(H) / n |w' - w|^2 in all, within the bytes that uniform bits take."""
        same = self.uniform(found)
        limit = sum(size(w.shape, self.quantiser(same[w.path])) for w in found)
        split = take(task.train, self.examples, self.seed)
        steep = traces(module, [w.path for w in found], task, split.batches(_MOMENT), self.seed, meter)
        costs: dict[str, dict[int, float]] = {}
        sizes: dict[str, dict[int, int]] = {}
        for weight in found:
            tensor = attribute(module, weight.path).detach()
            per = max(steep[weight.path], 0.0) / tensor.numel()
            made = {b: self.quantiser(b) for b in MIXED}
            costs[weight.path] = {b: per * errors(tensor, q(tensor)) for b, q in made.items()}
            sizes[weight.path] = {b: size(weight.shape, q) for b, q in made.items()}
        return allot(costs, sizes, limit)

    def _learn(self, count: int, meter: Meter) -> Any:
        """How AdaRound shares what is left of the budget among the weights."""
        if self.rounding != "adaround":
            return None
        method, done = AdaRound(self.steps), iter(range(count))

        def learn(weight: Tensor, quantiser: Quantiser, seen: Moments) -> Integers:
            seconds = meter.left().seconds
            share = math.inf if seconds is None else seconds / (count - next(done))
            return method(weight, quantiser, seen, share)

        return learn
