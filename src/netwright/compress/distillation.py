"""Knowledge distillation: a small network learns the large one's probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from netwright.compress.parts.soft_targets import SoftTargets
from netwright.compress.rethink import Rethink
from netwright.core.budget import Budget
from netwright.core.errors import NotApplicable
from netwright.core.fit import Fit
from netwright.core.network import (
    call,
    clone,
    device_of,
    evaluating,
    move,
    parameter_count,
    seeded,
)
from netwright.core.task import Task
from netwright.models import build


@dataclass(frozen=True)
class Distillation:
    """Train a student on (1 - alpha) * task loss + alpha * T^2 * KL(teacher at T || student at T), what that is for
    other tasks than classification: parts/soft_targets.py.

    Distilling the Knowledge in a Neural Network (arXiv 1503.02531).

    student: a module (trained as it is, on a copy), the name of a model, or None for the given network's own
    architecture, every layer pruned alike to 1 - `ratio` of the multiply-accumulates, with new weights; where no
    width of it can change and inputs are images, a plain CNN. size: parameters of a model by name, default 1 - `ratio`
    of the teacher's. The teacher runs on every training batch, augmented as the student sees it, and is
    charged for. The paper tunes T (20 for wide students, 2.5 to 4 for narrow ones) and wants the task's own loss to
    weigh little. The defaults here differ: on one seed of networks like the claim's, by test accuracy, 2 and 0.5 were
    level with higher ones for a student that overfits, and 1 to 4 points better for one that is small and trained
    briefly. Tune them on validation data of your own.
    """

    student: nn.Module | str | None = None
    size: int | None = None
    ratio: float = 0.75
    temperature: float = 2.0
    alpha: float = 0.5
    epochs: float = 20
    batch_size: int = 128
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: float = 2e-3
    weight_decay: float = 1e-2
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        soft = SoftTargets(self.temperature, self.alpha)
        meter = budget.start()
        student = self.new_student(network, task).to(device_of(network)).requires_grad_(True)
        fit = Fit(
            epochs=self.epochs, batch_size=self.batch_size, optimiser=self.optimiser, lr=self.lr,
            weight_decay=self.weight_decay, seed=self.seed,
        )  # fmt: skip
        fit(student, task, loss=soft.by(network, task, meter), meter=meter)
        return student

    def new_student(self, network: nn.Module, task: Task) -> nn.Module:
        """The untrained student."""
        if isinstance(self.student, nn.Module):
            return clone(self.student)
        size = self.size or max(1, round((1 - self.ratio) * parameter_count(network)))
        with evaluating(network), torch.no_grad():  # it may know more classes than the data hold
            taught = call(network, move(task.example(2), device_of(network)))
        outputs = taught.shape[1] if taught.dim() == 2 else task.outputs
        with seeded(self.seed):
            if isinstance(self.student, str):
                return build(self.student, task.input_shape, outputs, size)
        try:
            return Rethink(ratio=self.ratio, seed=self.seed).new_network(network, task)
        except NotApplicable:
            if task.meaning != "image":
                raise
            with seeded(self.seed):
                return build("cnn", task.input_shape, outputs, size)
