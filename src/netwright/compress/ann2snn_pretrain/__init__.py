"""Spiking networks from sharpened ordinary ones: trained without time first, then briefly with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from netwright.compress.ann2snn_pretrain.neurons import EPOCHS, THRESHOLD, Neuron, ramp
from netwright.compress.ann2snn_pretrain.spiking import Simulator, SpikingNetwork, converted, rates, spiking
from netwright.core.budget import Budget, Meter
from netwright.core.errors import BadInput
from netwright.core.fit import Fit, State
from netwright.core.network import device_of
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised
from netwright.core.weights.recalibrate import recalibrate

__all__ = [
    "Ann2SnnPretrain", "Neuron", "Simulator", "SpikingNetwork", "begun", "converted", "pretrain", "rates", "spiking",
    "tune",
]  # fmt: skip


@dataclass(frozen=True)
class Ann2SnnPretrain:
    """The given architecture with leaky neurons in the place of its ReLUs, trained for `epochs` without time and then
    for `tune` epochs over `steps` moments.

    Rethinking Pretraining as a Bridge from ANNs to SNNs (arXiv 2203.01158), its pipeline for still images. Without time
    a neuron is a ramp that steepens to the hard step, with the spike's surrogate gradient: at a `steps`-th of the cost
    of a moment-by-moment training, and with weights that suit spikes.

    start: 'sharpened' (the method; the given weights play no part), 'given' (the weights of the given network, as it
    was trained with ReLUs) or 'none' (new weights, spikes from the beginning). analogue: neurons that give their
    membrane, and spike to reset only (LIAF). lr is that of both trainings (SGD, momentum 0.9, no weight decay); the
    second one's falls to 0.3 of itself at 2, 4, 6 and 8 tenths. Batch norms' weights begin at the threshold of 0.5.

    Returns a `SpikingNetwork`: batches of stills as the given network's, outputs the mean over the moments. It leaves
    as ONNX with its moments written out. On a CPU, dense kernels run all moments, so that it is slower than what it was
    made from: what spikes save needs hardware that skips zeros.

    Where we differ: the schedule counts in shares of the training, where the paper's has 100 epochs, and its first part
    falls along a cosine. Batch statistics are measured anew when moments come in. Event streams:
    `tune` with clips (B, T, C, H, W) on a network pretrained on frames. NotApplicable where a network bends by anything
    but ReLU modules.
    """

    steps: int = 6
    epochs: float = EPOCHS
    tune: float = 10
    lr: float = 0.1
    batch_size: int = 128
    start: Literal["sharpened", "given", "none"] = "sharpened"
    analogue: bool = False
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        if self.steps < 1:
            raise BadInput("a spiking network needs at least 1 step")
        if self.start not in ("sharpened", "given", "none"):
            raise BadInput(f"no start named '{self.start}'; use sharpened, given or none")
        meter = budget.start()
        made = spiking(network, task.example(2), self.steps, self.analogue).to(device_of(network))
        if self.start != "given":
            made = begun(reinitialised(made, self.seed))
        fit = Fit(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimiser="sgd",
            lr=self.lr,
            weight_decay=0.0,
            seed=self.seed,
        )
        if self.start == "sharpened" and self.epochs:
            cost = self.epochs + self.tune * self.steps
            part = meter.left().part(self.epochs / cost).start()
            pretrain(made, task, fit, part)
            meter.spend(part.samples, part.epochs)
        tune(made.at(self.steps), task, self.tune, fit, meter)
        return made


def begun(network: SpikingNetwork) -> SpikingNetwork:
    """With the weights of batch norms at the threshold, in place."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, _BatchNorm) and module.weight is not None:
                module.weight.fill_(THRESHOLD)
    return network


def pretrain(network: SpikingNetwork, task: Task, fit: Fit, meter: Meter) -> None:
    """Train in place without time: one moment, whose neurons are ramps that steepen from `ramp(0)` to `ramp(1)`."""
    neurons = [m for m in network.modules() if isinstance(m, Neuron)]

    def sharpen(done: float) -> None:
        for neuron in neurons:
            neuron.ends = ramp(done)

    def steeper(state: State) -> None:
        sharpen(state.done)

    network.at(1)
    sharpen(0.0)
    fit(network, task, meter=meter, on_step=steeper)
    for neuron in neurons:
        neuron.ends = None


def tune(
    network: SpikingNetwork,
    task: Task,
    epochs: float,
    fit: Fit,
    meter: Meter,
    on_epoch: Callable[[State], None] | None = None,
) -> None:
    """Train in place with time. fit: the optimiser, the rate to begin with, batches and seed. Batch statistics are
    measured anew before and after, for those of a network without time, or of a rate that is still high, are others."""
    meter.spend(samples=recalibrate(network, task.train, seed=fit.seed))
    if epochs and not meter.exhausted:
        falling = replace(fit, epochs=epochs, schedule="steps", milestones=(0.2, 0.4, 0.6, 0.8), drop=0.3)
        falling(network, task, meter=meter, on_epoch=on_epoch)
        meter.spend(samples=recalibrate(network, task.train, seed=fit.seed))
    network.eval()
