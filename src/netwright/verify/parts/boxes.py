"""Boxes of inputs around examples, and what it means for a network to break one."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from netwright.core.contracts import Box
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.network import device_of
from netwright.core.plural import number_of
from netwright.core.split import Normalise


def box_around(
    inputs: Tensor,
    labels: Tensor,
    radius: float,
    clip: tuple[float, float] | None = None,
    normalise: Normalise | None = None,
) -> Box:
    """The L-infinity ball around inputs (B, ...) as the network takes them, cut to the valid range.

    radius, clip: in units of the input, or, where `normalise` is what has made the inputs, in units of what it
    normalises after its scaling: a radius of 8/255 then means eight grey levels of an image in [0, 1].
    """
    _continuous(inputs)
    if radius < 0:
        raise BadInput(f"a radius must not be negative, got {radius}")
    ones = (1, -1) + (1,) * (inputs.dim() - 2)
    mean = inputs.new_zeros(1) if normalise is None else normalise.mean.to(inputs).view(ones)
    std = inputs.new_ones(1) if normalise is None else normalise.std.to(inputs).view(ones)
    lower, upper = inputs - radius / std, inputs + radius / std
    if clip is not None:
        floor, ceiling = (clip[0] - mean) / std, (clip[1] - mean) / std
        slack = 1e-4 * (ceiling - floor)
        if bool(((inputs < floor - slack) | (inputs > ceiling + slack)).any()):
            raise BadInput(
                f"inputs lie outside the valid range {clip[0]:g} to {clip[1]:g}; give the right clip"
            )
        # an example on the edge, by rounding a little beyond it, stays in its own box
        lower = torch.minimum(torch.maximum(lower, floor), inputs)
        upper = torch.maximum(torch.minimum(upper, ceiling), inputs)
    return Box(lower, upper, labels)


def margins(outputs: Tensor, labels: Tensor) -> Tensor:
    """outputs[label] minus the best of the others, (B, C), (B,) -> (B,); negative where another class is on top."""
    own = outputs.gather(1, labels[:, None])[:, 0]
    others = outputs.scatter(1, labels[:, None], -torch.inf)
    return own - others.max(1).values


def _continuous(inputs: Tensor) -> None:
    if not inputs.is_floating_point():
        raise NotApplicable("a box needs continuous inputs; this network takes whole numbers")


def check(network: nn.Module, box: Box) -> None:
    """Refuse a box, or a network (by its outputs at the first centre), that no margin can be taken of."""
    _continuous(box.lower)
    required = [
        p for p in inspect.signature(network.forward).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip
    if len(required) > 1:
        raise NotApplicable(f"a box is of one input; this network takes {len(required)}")
    if len(box.label) == 0:
        raise BadInput("a box needs at least one example")
    if box.lower.shape != box.upper.shape or box.lower.shape[0] != box.label.shape[0]:
        raise BadInput(
            f"a box needs bounds of one shape and a label each; got {tuple(box.lower.shape)}, "
            f"{tuple(box.upper.shape)} and {tuple(box.label.shape)}"
        )
    if bool((box.lower > box.upper).any()) or not bool(torch.isfinite(box.lower + box.upper).all()):
        raise BadInput("a box needs finite bounds, the lower no greater than the upper")
    with torch.no_grad():
        outputs = network((box.lower[:1] + (box.upper[:1] - box.lower[:1]) / 2).to(device_of(network)))
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape[1] < 2:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise NotApplicable(
            f"margins need outputs (B, classes) with two classes or more; the network gives {shape}"
        )
    if int(box.label.min()) < 0 or int(box.label.max()) >= outputs.shape[1]:
        raise BadInput(
            f"a box's label is out of range: the network has {number_of(outputs.shape[1], 'output')}"
        )
