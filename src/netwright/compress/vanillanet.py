"""Deep training of a shallow network: VanillaNet (arXiv 2305.12972)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from netwright.compress.parts.soft_targets import SoftTargets
from netwright.core.budget import Budget, Meter
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit, Loss, State
from netwright.core.network import call, device_of, evaluating, move, parameter_count, seeded
from netwright.core.task import Task
from netwright.core.weights.recalibrate import recalibrate
from netwright.models.vanillanet import Slope, VanillaNet, VanillaNetwork


@dataclass(frozen=True)
class Vanilla:
    """Train a VanillaNet from new weights in place of the given network, twice as deep as it will be, and fuse it.

    Every convolution is two while it is trained, with A'(x) = (1 - slope) relu(x) + slope x between them. The slope
    rises from 0 to exactly 1 over the share `over` of the training, and stays; then each pair is one linear map, and is
    multiplied out. What comes out is plain: convolutions, max pooling, ReLU and depthwise convolutions, no shortcut.

    size: parameters of the fused network, default a quarter of the given one's. depth: 5 to 13. series: see
    `models.vanillanet`. deep: False trains the fused form itself, for comparison. alpha, temperature: weight of what
    the given network gives, as soft targets; its passes are charged. At 0 its weights play no part: only its outputs'
    width, its device and its size. Images only; NotApplicable for anything else.

    Paper: 300 epochs of LAMB 3.5e-3 at batch 1024, weight decay 0.35, binary cross entropy, mixup 0.1, RandAugment,
    dropout 0.05, averaged weights 0.99996, the slope raised after each epoch until the 100th. Here AdamW on the task's
    own loss and augmentation, and the slope raised after each step.
    """

    size: int | None = None
    depth: int = 5
    series: int | None = None
    deep: bool = True
    over: float = 1 / 3
    alpha: float = 0.0
    temperature: float = 2.0
    fit: Fit = Fit(epochs=20, lr=3e-3, weight_decay=1e-2, warmup=1.0)  # noqa: RUF009  frozen
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        meter = budget.start()
        made = self.new_network(network, task).to(device_of(network))
        soft = SoftTargets(self.temperature, self.alpha).by(network, task, meter) if self.alpha else None
        deep_training(made, task, replace(self.fit, seed=self.seed), meter, self.over, soft)
        return made.fuse()

    def new_network(self, network: nn.Module, task: Task) -> VanillaNetwork:
        """The untrained one, as wide as makes the fused one nearest to the size."""
        if len(task.input_shapes) > 1:
            raise NotApplicable("a vanillanet takes one image, not several inputs")
        with evaluating(network), torch.no_grad():
            outputs = call(network, move(task.example(2), device_of(network)))
        width = outputs.shape[1] if outputs.dim() == 2 else task.outputs
        plan = VanillaNet(self.depth, series=self.series, deep=False)
        size = self.size or max(1, parameter_count(network) // 4)
        try:
            fused = plan.build(task.input_shape, width, size)
        except BadInput as error:
            if self.size is not None:
                raise
            raise NotApplicable(f"no vanillanet is a quarter of this network: {error}") from None
        assert isinstance(fused, VanillaNetwork)
        with seeded(self.seed):
            made = replace(plan, dims=fused.dims, deep=self.deep).build(task.input_shape, width)
        assert isinstance(made, VanillaNetwork)
        return made


def deep_training(
    network: nn.Module, task: Task, fit: Fit, meter: Meter, over: float = 1 / 3, loss: Loss | None = None
) -> None:
    """Train in place while the slopes of a network (`models.vanillanet.Slope`) rise from 0 to exactly 1, linearly over
    the share `over` of the training. Then batch
    statistics are measured anew, for running ones lag far behind after a short training."""
    if not 0 < over <= 1:
        raise BadInput(f"the slope rises over a share of the training between 0 and 1, not {over}")

    def raise_slopes(state: State) -> None:
        _set(network, min(1.0, state.done / over))

    _set(network, 0.0)
    fit(network, task, meter=meter, on_step=raise_slopes, loss=loss)
    _set(network, 1.0)
    meter.spend(samples=recalibrate(network, task.train, seed=fit.seed))


def _set(network: nn.Module, slope: float) -> None:
    for module in network.modules():
        if isinstance(module, Slope):
            module.slope.fill_(slope)
