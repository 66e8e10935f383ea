"""Shift weights without zero against rounding to powers of two, shift weights with zero, and floats, measured here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from netwright.claims.beds.quartered import quartered
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean, told
from netwright.compress.denseshift import Shifts
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.task import Task
from netwright.core.weights.grids import PowerOfTwo
from netwright.core.weights.parametrise import Quantiser
from netwright.data import task as named_task
from netwright.models import build

BASELINES = ("float", "rounded", "s3")
INNER = ("conv2", "conv3")  # between the first and the last layer
CLAIM = Claim(
    slug="denseshift",
    seeds=5,
    paper="competitive with full precision, and ahead of other shift networks, on vision and speech; transfers better",
    setting=(
        "CNN with batch norm of widths 16, 32, 64 from new weights, 4,000 images of Fashion-MNIST at 14x14, 10 epochs "
        "of AdamW 2e-3, batch 64, no decay; inner layers in 3 bits: DenseShift, rounding to 0 and powers of two with "
        "straight gradients, and S3 (0, 1, 2, 4 with signs, without its regulariser); then a new head and 6 epochs on "
        "the 8 x 8 digits, as transfer; five seeds of data, weights and order, test accuracy"
    ),
    rule=Rule(
        holds=(
            Part("accuracy: denseshift less rounded", "at least", 0.0),
            Part("accuracy: denseshift less s3", "at least", 0.0),
            Part("accuracy: denseshift less float", "at least", -0.015),
            Part("transfer: denseshift less rounded", "at least", 0.0),
            Part("transfer: denseshift less s3", "at least", 0.0),
        ),
        bed=(Part("accuracy of float", "at least", 0.8), Part("transfer of float", "at least", 0.9)),
    ),
)


class Sparse(nn.Module):
    """S3 (arXiv 2107.03453): H(z) * (2 H(s) - 1) * 2^(H(a) (H(b) + 1)), straight gradients: 0, 1, 2 and 4 with signs.

    Its scale is one for each output, as DenseShift has it here. No weight is 0 at the start, as its authors want it;
    their regulariser, which holds weights from 0, is left out.
    """

    def forward(self, scale: Tensor, z: Tensor, s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        step = lambda t: (t > 0).to(t.dtype) + (t - t.detach())
        return scale * step(z) * (2 * step(s) - 1) * torch.exp2(step(a) * (step(b) + 1))

    def right_inverse(self, w: Tensor) -> tuple[Tensor, ...]:
        latents = [1e-3 * torch.randn(w.shape) for _ in range(4)]
        latents[0] = latents[0].abs()
        ones = torch.ones(1)
        typical = self.forward(ones, *(t.reshape(-1) for t in latents)).pow(2).mean().sqrt()
        return w.flatten(1).pow(2).mean(1).sqrt().view(-1, *[1] * (w.dim() - 1)) / typical, *latents


ARMS: dict[str, Callable[[], nn.Module] | None] = {
    "float": None,
    "rounded": lambda: Quantiser(PowerOfTwo(3), channel=0),
    "s3": Sparse,
    "denseshift": lambda: Shifts(4, 1e-3, given=False),
}


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows = []
    for seed in scale.seeds:
        task = quartered(4000, 4000, seed)
        for arm, make in ARMS.items():
            rows.append({"arm": arm, "seed": seed, **trained(make, task, seed)})
    return rows


def trained(
    make: Callable[[], nn.Module] | None, task: Task, seed: int, epochs: tuple[float, float] = (10, 6)
) -> dict[str, float]:
    """Test accuracy on the task, and on the digits afterwards."""
    digits = named_task("digits")
    with seeded(seed):
        network = build("cnn", task.input_shape, task.outputs, widths=(16, 32, 64))
        for name in INNER if make else ():
            parametrize.register_parametrization(network.get_submodule(name), "weight", make())  # type: ignore[misc]
        head = nn.Linear(64, digits.outputs)
    fit = Fit(epochs=epochs[0], batch_size=64, lr=2e-3, weight_decay=0.0, seed=seed)
    fit(network, task)
    accuracy = evaluate(network, task, "test")["accuracy"]
    network.head = head
    Fit(epochs=epochs[1], batch_size=64, lr=2e-3, weight_decay=0.0, seed=seed)(network, digits)
    return {"accuracy": accuracy, "transfer": evaluate(network, digits, "test")["accuracy"]}


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures = differences(rows, "denseshift", BASELINES, ("accuracy", "transfer"))
    said = ", ".join(
        f"{arm} {100 * mean(rows, arm, 'accuracy'):.2f} % ({100 * mean(rows, arm, 'transfer'):.2f} %)"
        for arm in ARMS
    )
    gaps = ", ".join(f"{told(figures[f'accuracy: denseshift less {arm}'])} from {arm}" for arm in BASELINES)
    return Measured(
        summary=f"accuracy (on the digits afterwards): {said}; in points: {gaps}",
        figures=figures,
        bed={f"{figure} of float": mean(rows, "float", figure) for figure in ("accuracy", "transfer")},
        notes=(
            "Two inner layers are in 3 bits, a small network that leaves little room between arms: where an interval "
            "holds 0, arms are level and none is shown to be better. S3 without its regulariser is weaker than its "
            "authors' method. Nothing here says anything of speed: on a processor that multiplies as fast as it adds, "
            "shifts gain nothing."
        ),
    )
