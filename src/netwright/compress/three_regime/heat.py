"""How hot a training is: for how long, on how large batches, how far sharpness-aware steps look."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.fit import Fit, History, State
from netwright.core.network import Inputs, call
from netwright.core.task import Task

Knob = Literal["epochs", "batch", "rho"]


@dataclass(frozen=True)
class Heat:
    """One temperature: the recipe with another number of epochs, another batch size, or sharpness-aware steps of
    radius `value`. Hotter are fewer epochs, smaller batches, larger radii."""

    knob: Knob
    value: float

    def __post_init__(self) -> None:
        if self.knob not in ("epochs", "batch", "rho"):
            raise BadInput(f"no knob named '{self.knob}'; use epochs, batch or rho")
        if self.value <= 0:
            raise BadInput(f"{self.knob} must be above 0, not {self.value}")

    @property
    def hotness(self) -> float:
        """Rises with the temperature."""
        return self.value if self.knob == "rho" else -self.value

    def train(self, network: nn.Module, task: Task, recipe: Fit, budget: Budget) -> History:
        """In place."""
        if self.knob == "rho":
            sharp = Sharpness(task, self.value, recipe.label_smoothing)
            return recipe(network, task, budget, loss=sharp.loss, on_step=sharp.back)
        settings: dict[str, Any] = (
            {"epochs": self.value} if self.knob == "epochs" else {"batch_size": max(1, int(self.value))}
        )
        return replace(recipe, **settings)(network, task, budget)


class Sharpness:
    """Sharpness-aware minimisation (arXiv 2010.01412): the gradient is taken `radius` up the slope, the step from
    where the weights were. Batch statistics see the first of the two passes alone."""

    def __init__(self, task: Task, radius: float, smoothing: float = 0.0) -> None:
        self.task, self.radius, self.smoothing = task, radius, smoothing
        self.moved: list[tuple[Tensor, Tensor]] = []

    def loss(self, network: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        at = lambda: self.task.loss(call(network, inputs), targets, self.smoothing)
        weights = [p for p in network.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(at(), weights, allow_unused=True)
        size = torch.stack([s.norm() for s in slopes if s is not None]).norm().clamp_min(1e-12)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                if slope is not None:
                    step = self.radius / size * slope
                    weight.add_(step)
                    self.moved.append((weight, step))
        norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            return at()
        finally:
            for norm, momentum in zip(norms, before, strict=True):
                norm.momentum = momentum

    def back(self, _: State) -> None:
        with torch.no_grad():
            for weight, step in self.moved:
                weight.sub_(step)
        self.moved = []
