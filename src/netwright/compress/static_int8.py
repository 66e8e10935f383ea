"""Post-training quantisation to 8-bit integers, with ranges of activations fixed by a calibration pass.

A Survey of Quantization Methods for Efficient Neural Network Inference (arXiv 2103.13630), sections III.A to
III.F and IV.C: uniform grids, symmetric per output channel for weights, affine per tensor for activations, with
integer-only arithmetic as in Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference (arXiv 1712.05877), for which the placement of roundings here is meant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from netwright.compress.parts.int8 import prepared, weight_bits
from netwright.compress.parts.int8_graph import (
    CONVOLUTIONS,
    LINEAR,
    finish,
    insert,
    layers,
    pack,
    place,
)
from netwright.core import progress
from netwright.core.budget import Budget, Meter
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.network import as_tuple
from netwright.core.split import take
from netwright.core.task import Task
from netwright.core.weights.grids import Uniform
from netwright.core.weights.ranges import RANGES, Range, minmax

_SAMPLE = 200_000  # values kept per place for ranges that need more than the ends
_BATCH = 64


@dataclass(frozen=True)
class StaticInt8:
    """Weights and activations in 8 bits, with activation ranges fixed by a calibration pass.

    Gives a plain module whose convolutions and linear layers hold int8 weights, and whose forward pass rounds as
    the integer kernels of ONNX Runtime do. Batch norms are folded first. Everything else (recurrent layers,
    attention's own products, normalisation, other activations) stays float. The result is for inference, on the
    CPU; gradients reach its inputs (straight through the roundings) but train nothing.

    examples: of the training split, for the calibration pass. range: of activations: all values (minmax), 99.99
    percent of them, or the part with the least squared error (mse) or loss of information (entropy); weights always
    use all values.
    reduce_range: 7-bit weights, whose sums of two products cannot overflow 16 bits. Processors with AVX2 or
    AVX-512 but no VNNI need that; None does it where this machine is such a one.
    """

    examples: int = 256
    range: Literal["minmax", "percentile", "mse", "entropy"] = "minmax"
    reduce_range: bool | None = None
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        if self.range not in RANGES:
            raise BadInput(f"no range named '{self.range}'; use minmax, percentile, mse or entropy")
        module = prepared(network, task)
        if not any(layers(module, CONVOLUTIONS | LINEAR)):
            raise NotApplicable("there is no convolution or linear layer to quantise")
        roundings = place(module)
        watched = [n for n in module.graph.nodes if n in roundings and n not in roundings.tied]
        seen = self._calibrate(module, watched, task, budget.start())
        grids = {node: _grid(seen[node], RANGES[self.range]) for node in watched}
        for node in {roundings.source(pool.args[0]) for pool in roundings.averages}:
            grids[node] = (_short(grids[node][0]), grids[node][1])
        insert(module, roundings, grids)
        pack(module, weight_bits(self.reduce_range), static=True)
        return finish(module)

    def _calibrate(
        self, module: fx.GraphModule, watched: list[fx.Node], task: Task, meter: Meter
    ) -> dict[fx.Node, _Seen]:
        """One pass over some training examples; what each watched node gave."""
        allowed = self.examples if meter.budget.samples is None else min(self.examples, meter.budget.samples)
        split = take(task.train, max(1, allowed), self.seed)
        seen = {node: _Seen(_SAMPLE * _BATCH // max(_BATCH, len(split)), self.seed) for node in watched}
        watcher = _Watcher(module, seen)
        done = 0
        with torch.no_grad():
            for inputs, _ in split.batches(_BATCH):
                watcher.run(*as_tuple(inputs))
                done += len(as_tuple(inputs)[0])
                meter.spend(samples=len(as_tuple(inputs)[0]))
                progress.step(done, len(split), "calibration")
                if meter.exhausted or done >= len(split):
                    break
        return seen


class _Seen:
    """The ends of all values that passed a place, and a random sample of them."""

    def __init__(self, per_batch: int, seed: int) -> None:
        self.per_batch = per_batch
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        self.sample: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(seed)

    def add(self, values: Tensor) -> None:
        flat = values.detach().float().flatten()
        self.low, self.high = torch.minimum(self.low, flat.amin()), torch.maximum(self.high, flat.amax())
        if len(flat) > self.per_batch:
            flat = flat[torch.randint(len(flat), (self.per_batch,), generator=self.generator)]
        self.sample.append(flat.clone())


def _grid(seen: _Seen, range: Range) -> tuple[float, int]:
    """Scale and zero of the affine 8-bit grid for what was seen."""
    grid = Uniform(8, symmetric=False)
    if range is minmax:
        low, high = seen.low[None], seen.high[None]
    else:
        rows = torch.cat(seen.sample)[None]

        def rounding(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
            scale, zero = (t[:, None] for t in grid.place(low, high))
            return (grid.codes(values, scale, zero) - zero) * scale

        low, high = range(rows, rounding)
    scale, zero = grid.place(low, high)
    return float(scale), int(zero)


def _short(scale: float) -> float:
    """The next number with eight significant bits: sums of up to 257 codes times it (of more where they are not all at
    their largest) are exact in float32, in whatever order a runtime adds them, so that a mean is the same in each."""
    digits, exponent = math.frexp(scale)
    return math.ldexp(math.ceil(digits * 256), exponent - 8)


class _Watcher(fx.Interpreter):
    """Runs the graph and shows every watched node's result to its `_Seen`."""

    def __init__(self, module: fx.GraphModule, seen: dict[fx.Node, _Seen]) -> None:
        super().__init__(module)
        self.seen = seen

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.seen:
            self.seen[n].add(result)
        return result
