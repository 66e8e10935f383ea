"""Neurons that stand in a network's place of ReLU: leaky ones that fire, and what they are while the network is
trained without time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

THRESHOLD, DECAY = 0.5, 0.25
EPOCHS = 100  # of the paper's schedule; `ramp` counts in them


class _Through(torch.autograd.Function):
    """A value whose gradient goes to the membrane where that is within half a unit of the threshold; else nowhere."""

    @staticmethod
    def forward(ctx: Any, membrane: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward((membrane - THRESHOLD).abs() < 0.5)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (near,) = ctx.saved_tensors
        return gradients[0] * near, None


def fires(membrane: Tensor) -> Tensor:
    """1 above the threshold, else 0; with the surrogate gradient where gradients are kept."""
    value = (membrane.detach() > THRESHOLD).to(membrane.dtype)
    return _Through.apply(membrane, value) if membrane.requires_grad else value  # type: ignore[no-any-return]


def sharpened(x: Tensor, low: float, high: float) -> Tensor:
    """A ramp from 0 at `low` to 1 at `high`, with the gradient of a neuron that fires."""
    value = ((x.detach() - low) / (high - low)).clamp(0, 1)
    return _Through.apply(x, value) if x.requires_grad else value  # type: ignore[no-any-return]


def ramp(done: float) -> tuple[float, float]:
    """Ends of the ramp when the share `done` of the pretraining is over: (0.005, 0.995) at first, (0.49, 0.5) last."""
    epoch = max(1.0, EPOCHS * done)
    return min(epoch / 200, 0.49), 1 - epoch / 200


class Neuron(nn.Module):
    """Leaky integrate and fire, over `steps` moments that stand one after the other in the batch: (T * B, ...) to the
    same shape.

    u_t = 0.25 u_{t-1} (1 - s_{t-1}) + x_t and s_t = 1 where u_t > 0.5, else 0; it gives s, or with `analogue` relu(u)
    (LIAF: spikes only reset). No gradient flows through the reset. ends: while there are some and the network is
    trained, it has no time and gives `sharpened(x, *ends)`; in evaluation it is the hard step all the same.
    """

    def __init__(self, steps: int, analogue: bool = False) -> None:
        super().__init__()
        self.steps, self.analogue = steps, analogue
        self.ends: tuple[float, float] | None = None
        self.held: list[tuple[Tensor, Tensor]] | None = (
            None  # membranes and spikes by place, while time passes outside
        )
        self.place = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.ends is not None and self.training:
            return sharpened(x, *self.ends)
        if self.held is not None:
            return self._moment(x)
        moments = x.unflatten(0, (self.steps, -1))
        membrane = moments[0]
        spikes = fires(membrane)
        given = [self._given(membrane, spikes)]
        for moment in moments[1:]:
            membrane = DECAY * membrane * (1 - spikes.detach()) + moment
            spikes = fires(membrane)
            given.append(self._given(membrane, spikes))
        return torch.stack(given).flatten(0, 1)

    def _moment(self, x: Tensor) -> Tensor:
        """One moment (B, ...) on top of what is held from the one before; a module that runs twice has two places."""
        assert self.held is not None
        if self.place < len(self.held):
            membrane, spikes = self.held[self.place]
            x = DECAY * membrane * (1 - spikes) + x
        spikes = fires(x)
        self.held[self.place : self.place + 1] = [(x, spikes)]
        self.place += 1
        return self._given(x, spikes)

    def _given(self, membrane: Tensor, spikes: Tensor) -> Tensor:
        return membrane.relu() if self.analogue else spikes

    def extra_repr(self) -> str:
        return f"steps={self.steps}, analogue={self.analogue}"


class Integrator(nn.Module):
    """What a trained ReLU becomes without any training: it fires `threshold` whenever that much has come in, and keeps
    the rest. Begins half way. Over `steps` moments its mean is the ReLU's value cut at the threshold, in steps of
    threshold / steps. Shapes as `Neuron`'s."""

    threshold: Tensor

    def __init__(self, steps: int, threshold: float) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("threshold", torch.tensor(threshold))

    def forward(self, x: Tensor) -> Tensor:
        moments = x.unflatten(0, (self.steps, -1))
        membrane = torch.full_like(moments[0], 0.5) * self.threshold
        given = []
        for moment in moments:
            membrane = membrane + moment
            spikes = (membrane >= self.threshold).to(x.dtype) * self.threshold
            membrane = membrane - spikes
            given.append(spikes)
        return torch.stack(given).flatten(0, 1)
