"""A loss that also asks for what a larger network gives: how anything that trains a small network can be taught.

Distilling the Knowledge in a Neural Network, arXiv 1503.02531.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.budget import Meter
from netwright.core.errors import BadInput
from netwright.core.fit import Loss
from netwright.core.network import Inputs, batch_size, call, clone
from netwright.core.task import Task


@dataclass(frozen=True)
class SoftTargets:
    """(1 - alpha) * task loss + alpha * T^2 * KL(teacher at T || student at T).

    The T^2 keeps the gradients' size independent of the temperature. Each label of a multi-label task is a choice of
    two; in a regression the teacher's values take the place of soft targets (squared error, no temperature).
    """

    temperature: float = 2.0
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or not self.temperature > 0:
            raise BadInput("alpha lies in [0, 1] and the temperature is positive")

    def by(self, network: nn.Module, task: Task, meter: Meter) -> Loss:
        """The loss of a student that this network teaches. It runs on every batch, as the student sees it, and the
        meter is charged for that."""
        teacher = clone(network).eval().requires_grad_(False)

        def loss(student: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
            with torch.no_grad():
                taught = call(teacher, inputs)
            meter.spend(samples=batch_size(inputs))
            return self.loss(call(student, inputs), taught, targets, task)

        return loss

    def loss(self, outputs: Tensor, taught: Tensor, targets: Tensor, task: Task) -> Tensor:
        """outputs, taught: (B, O) of student and teacher; targets as the task's."""
        if outputs.shape != taught.shape:
            raise BadInput(
                f"the student gives {tuple(outputs.shape)}, the teacher {tuple(taught.shape)}; they must match"
            )
        t = self.temperature
        if task.kind == "classification":
            student, teacher = (F.log_softmax(x.float() / t, 1) for x in (outputs, taught))
            soft = t**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        elif task.kind == "multilabel":
            p = torch.sigmoid(taught.float() / t)
            cross = F.binary_cross_entropy_with_logits(outputs.float() / t, p)
            soft = t**2 * (cross - F.binary_cross_entropy(p, p))
        else:
            soft = F.mse_loss(outputs, taught)
        return (1 - self.alpha) * task.loss(outputs, targets) + self.alpha * soft
