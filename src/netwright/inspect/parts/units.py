"""What counts as a layer, and what as a unit of it.

A unit is a channel: dimension 1 of maps (B, C, ...) and of vectors (B, C); the last dimension of sequences
(B, T, C), unless the last layer that decides was a one-dimensional convolution (B, C, T).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netwright.core.errors import NotApplicable
from netwright.core.network import Inputs, batch_size, call, device_of, evaluating, move
from netwright.core.taps import places, watching

# in evaluation mode these give what they are given
SAME = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.Softplus, nn.Hardswish,
)  # fmt: skip
CHANNELS_FIRST = (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d)
CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RNNBase, nn.Embedding)


@dataclass(frozen=True)
class Layer:
    """One run of a module in a pass: its place, which run it is (0 but for shared modules), its output's shape
    without the batch, and which dimension counts units."""

    place: str
    run: int
    shape: tuple[int, ...]
    axis: int

    @property
    def name(self) -> str:
        place = self.place or "network"
        return place if self.run == 0 else f"{place}#{self.run + 1}"

    @property
    def width(self) -> int:
        return self.shape[self.axis - 1]

    @property
    def size(self) -> int:
        """Numbers in the output for one example."""
        return torch.Size(self.shape).numel()


def layers(network: nn.Module, example: Inputs, names: Sequence[str] | None = None) -> list[Layer]:
    """The layers that run on the example (2 or more rows), in order.

    names: places to look at; default all leaves, but for those that give what they are given. Only outputs
    that are floating and have the batch in front are layers.
    """
    modules = dict(network.named_modules())
    if names is None:
        # a network that is one layer has no places inside
        names = [n for n in places(network) if not isinstance(modules[n], SAME)] or [""]
    found: list[Layer] = []
    runs: dict[str, int] = {}
    rows, last = batch_size(example), False

    def observe(place: str, value: Tensor) -> None:
        nonlocal last
        if isinstance(modules[place], (*CHANNELS_FIRST, *CHANNELS_LAST)):
            last = isinstance(modules[place], CHANNELS_LAST)
        run = runs[place] = runs.get(place, -1) + 1
        if value.is_floating_point() and value.dim() >= 2 and value.shape[0] == rows:
            axis = 2 if value.dim() == 3 and last else 1
            found.append(Layer(place, run, tuple(value.shape[1:]), axis))

    with evaluating(network), torch.no_grad(), watching(network, names, observe):
        call(network, move(example, device_of(network)))
    if not found:
        raise NotApplicable("no layer of this network gives an output with the batch in front")
    return found


def per_unit(value: Tensor, axis: int) -> Tensor:
    """Activations (B, ...) as rows of units (B * positions, C)."""
    if value.dim() == 2:
        return value
    return value.movedim(axis, -1).reshape(-1, value.shape[axis])
