"""One walk through a network with float and with rounded weights side by side: each layer is rounded as the walk comes
to it, from what it is given by the rounded ones before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from netwright.compress.parts.int8_graph import CONVOLUTIONS, attribute
from netwright.compress.parts.moments import Moments, moments
from netwright.compress.parts.weights import Rounded, Weight, weights
from netwright.core import progress
from netwright.core.budget import Meter
from netwright.core.measure.cost import peak_activation_bytes
from netwright.core.split import first, take
from netwright.core.task import Task
from netwright.core.weights.grids import Integers
from netwright.core.weights.parametrise import Quantiser

Learn = Callable[[Tensor, Quantiser, Moments], Integers]
"""(weight (O, ...), its quantiser, moments of what its layer is given) -> its integers."""


_MEMORY = 2**30  # bytes of activations that a walk may hold


def held_at_once(network: nn.Module, task: Task, examples: int) -> int:
    """How many examples one walk can carry: fewer than asked for where their activations take more than a gigabyte."""
    return min(examples, max(1, _MEMORY // max(1, peak_activation_bytes(network, task.example(1)))))


def calibration(network: nn.Module, task: Task, examples: int, seed: int, meter: Meter) -> tuple[Tensor, ...]:
    """Training inputs for a walk, drawn by the seed and charged: as many as asked for, held at once and allowed."""
    count = held_at_once(network, task, examples)
    split = take(task.train, min(count, meter.budget.samples or count), seed)
    meter.spend(samples=len(split))
    return first(split, len(split))


@dataclass
class Walk:
    """Rounds every weight that has a quantiser, by name: to the nearest value, or as `learn` says where a convolution
    or linear layer reads it.

    correct: make up for the mean of each channel's error in the layer's bias (Data-Free Quantization Through Weight
    Equalization and Bias Correction, arXiv 1906.04721, its empirical form). A weight that several layers share leaves
    their biases alone. rounded: by the weight's name. biases: by the layer's, the corrected ones.
    """

    module: fx.GraphModule
    quantisers: Mapping[str, Quantiser]
    learn: Learn | None = None
    correct: bool = False
    rounded: dict[str, Rounded] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, inputs: tuple[Tensor, ...]) -> Walk:
        """inputs: calibration examples, batch first; all of them pass at once."""
        found = [weight for weight in weights(self.module) if weight.path in self.quantisers]
        plan = {node: weight for weight in found for node in weight.layers}
        for weight in found:
            if not weight.layers:
                self._round(weight, None)
        pairs: dict[fx.Node, tuple[Any, Any]] = {}
        last = {source: node for node in self.module.graph.nodes for source in node.all_input_nodes}
        given = iter(inputs)
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                x = next(given)
                pairs[node] = (x, x)
            elif node.op == "call_function":
                make = self._layer if node in plan else self._both
                pairs[node] = make(node, pairs, plan.get(node))
            for source in node.all_input_nodes:
                if last[source] is node:
                    pairs.pop(source, None)
        return self

    def _both(self, node: fx.Node, pairs: Any, _: Weight | None) -> tuple[Any, Any]:
        return self._run(node, pairs, 0), self._run(node, pairs, 1)

    def _run(self, node: fx.Node, pairs: Any, side: int) -> Any:
        """side: 0 with the weights as they are, 1 with the rounded ones."""

        def value(source: fx.Node) -> Any:
            if source.op != "get_attr":
                return pairs[source][side]
            rounded = self.rounded.get(str(source.target)) if side else None
            return attribute(self.module, str(source.target)) if rounded is None else rounded.values

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _layer(self, node: fx.Node, pairs: Any, weight: Weight | None) -> tuple[Tensor, Tensor]:
        assert weight is not None
        source: Any = node.args[0]
        x, wanted = pairs[source][1], self._run(node, pairs, 0)
        channel = 1 if node.target in CONVOLUTIONS else -1
        held: Any = node.args[2] if len(node.args) > 2 else None
        bias = torch.zeros(weight.shape[0]) if held is None else attribute(self.module, held.target)
        spread = (-1, *[1] * (wanted.dim() - 2)) if channel == 1 else (-1,)
        alone = self.correct and len(weight.layers) == 1
        if weight.path not in self.rounded:
            seen = None
            if self.learn is not None:
                tensor = attribute(self.module, weight.path)
                seen = moments(node, x, wanted - bias.view(spread), tensor, centred=alone)
            self._round(weight, seen)
        found = self._run(node, pairs, 1)
        if alone:
            error = (wanted - found).movedim(channel, 0).flatten(1).mean(1)
            self.biases[node.name] = bias + error
            found = found + error.view(spread)
        return wanted, found

    def _round(self, weight: Weight, seen: Moments | None) -> None:
        tensor, quantiser = attribute(self.module, weight.path), self.quantisers[weight.path]
        learned = self.learn is not None and seen is not None
        twin = self.learn(tensor, quantiser, seen) if learned else quantiser.to_integer(tensor)  # type: ignore[misc, arg-type]
        self.rounded[weight.path] = Rounded.of(tensor, quantiser, twin)
        progress.step(len(self.rounded), len(self.quantisers), "rounding")
