"""Training for temporal sparsity in deep neural networks, application in video processing (arXiv 2107.07305)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from netwright.compress.delta_act.engine import activity
from netwright.compress.delta_act.frames import apart, check_frames, with_deltas
from netwright.compress.delta_act.layer import Delta, Gradient, change
from netwright.core import progress
from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.fit import Fit
from netwright.core.network import Inputs, as_tuple, clone, device_of
from netwright.core.taps import Taps
from netwright.core.task import Task


@dataclass(frozen=True)
class DeltaAct:
    """Train a network of clips (B, T, ...) so that its activations rarely change from frame to frame.

    Behind every activation (and the pooling that follows it) goes a layer y = theta round(x / theta), and the loss
    gets `weight` times the sum over these layers of mean |y_t - y_(t-1)|, the first frame excluded: the paper's
    lambda with n_out = 1. What comes out is a dense network whose activations lie on a grid; `DeltaEngine`
    (in `delta_act.engine`) runs it on a stream of frames, keeps the sums of every convolution and linear layer, and
    adds the products of what has changed alone, with the same outputs. On the processor that needs the extra
    `kernels`, and pays where little changes: below about 4 % of a convolution's inputs and 25 % of a linear layer's.
    Exported files are dense and gain nothing.

    Serves networks that work on each frame alone, (B, T, ...) in, and whose output for a clip is the mean of those for
    its frames; whatever a frame passes through, only the 2-d convolutions and linear layers follow deltas. Others are
    NotApplicable. Batch norms are folded before, so that training goes on without them. The given weights are the
    start; for training from scratch put `Delta` into the network and `change` into its loss.

    theta: the steps' start. per: one step for a layer, a channel, or a neuron. gradient: of the step, see `Delta`;
    'released' is the authors' heuristic. The paper does not say which weight and how many epochs it used.
    """

    weight: float = 1.0
    theta: float = 0.1
    per: Literal["layer", "channel", "neuron"] = "layer"
    gradient: Gradient = "released"
    fit: Fit = Fit(epochs=5, lr=1e-3, weight_decay=0.0)  # noqa: RUF009  frozen
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        if self.weight < 0:
            raise BadInput(f"weight is a factor of the loss on changes, not {self.weight}")
        meter = budget.start()
        clips = check_frames(network, task)
        device = device_of(network)
        made = with_deltas(clone(network).cpu(), apart(clips)[:2].cpu(), self.new_layer)
        made = clone(made).to(device)  # the tracer still holds the tensors that it saw, which cannot be moved
        names = [
            f"frames.{name}" for name, module in made.frames.named_modules() if isinstance(module, Delta)
        ]

        def loss(net: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
            x = as_tuple(inputs)[0]
            with Taps(net, names, detach=False) as taps:
                fits = task.loss(net(x), targets, self.fit.label_smoothing)
                changes = [change(taps[name].unflatten(0, (-1, x.shape[1]))) for name in names]
            return fits + self.weight * torch.stack(changes).sum()

        steps = [p for name, p in made.named_parameters() if _owner(name) in names]
        weights = [p for name, p in made.named_parameters() if _owner(name) not in names]
        groups = [{"params": weights}, {"params": [p for p in steps if p.requires_grad], "weight_decay": 0.0}]
        replace(self.fit, seed=self.seed)(made, task, loss=loss, parameters=groups, meter=meter)
        shares = activity(made, clips).values()
        changed, nonzero = (100 * sum(s) / len(shares) for s in zip(*shares, strict=True))
        progress.remark(
            f"{changed:.1f} % of activations change from frame to frame, {nonzero:.1f} % are not 0"
        )
        return made

    def new_layer(self, shape: tuple[int, ...]) -> Delta:
        """For values (N, ...) of this shape."""
        steps: tuple[int, ...] = ()
        if self.per == "neuron":
            steps = tuple(shape[1:])
        elif self.per == "channel":
            steps = (shape[1], *[1] * (len(shape) - 2)) if len(shape) > 3 else (shape[-1],)
        elif self.per != "layer":
            raise BadInput(f"no steps per '{self.per}'; use layer, channel or neuron")
        return Delta(self.theta, self.gradient, steps)


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0]
