"""What swapping convolutions and the last layer for simulated quantum circuits costs, and why, measured here."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import arms_of, differences, mean, spread
from netwright.compress.quantum_creep import creep
from netwright.compress.quantum_creep.layers import Quanvolution
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import parameter_count, seeded
from netwright.core.task import Task
from netwright.data import task as named_task

OUTER, INNER, PADDED = 32, 16, 2  # filters of the two convolutions, pixels around the digits
EXPLAINED = "accuracy: level 1 less constrained, in pooled standard deviations"
GAP = "accuracy: level 0 less level 1"
ERROR = "largest error of the circuits' expectations against the convolution"

CLAIM = Claim(
    slug="quantum-creep",
    seeds=5,
    paper=(
        "with convolutions and linear layer swapped 96.9 % on MNIST and 86.6 % on Fashion-MNIST, the best level on "
        "average; what a quanvolution's kernel can be is not examined"
    ),
    setting=(
        "digits of 8x8 padded to 12x12; conv 3x3 to 32, conv 3x3 to 16, linear, no activation between, as in the "
        "paper (there 32x32 pixels and 7 qubits, here 5); levels 0 to 2, convolutions constrained as a "
        "quanvolution's kernels are, level 0 with as many parameters as level 1, and level 0 with ReLU; 10 epochs "
        "of AdamW 1e-2, batch 32, new weights for each arm and seed; accuracy on test images. The paper's "
        "optimiser and epochs are not known"
    ),
    rule=Rule(
        holds=(Part(EXPLAINED, "within", 1), Part(ERROR, "at most", 1e-5)),
        mixed=(),
        bed=(Part("accuracy of level 0", "at least", 0.9), Part(GAP, "above")),
    ),
)


class Network(nn.Module):
    """The paper's three layers. filters: of the first convolution."""

    def __init__(self, side: int, filters: int = OUTER, relu: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, filters, 3), nn.Conv2d(filters, INNER, 3)
        self.between = nn.ReLU() if relu else nn.Identity()
        self.head = nn.Linear(INNER * (side - 4) ** 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self.second(self.between(self.first(x))))
        return self.head(x.flatten(1))


def padded(task: Task) -> Task:
    """The digits with zeros around them."""
    parts = {}
    for role in ("train", "val", "test"):
        batches = list(getattr(task, role).batches(512))
        x = torch.cat([F.pad(x, [PADDED] * 4) for x, _ in batches])
        parts[role] = x, torch.cat([y for _, y in batches])
    return Task.from_arrays(*parts["train"], val=parts["val"], test=parts["test"], name="padded digits")


def arms(task: Task, seed: int) -> dict[str, nn.Module]:
    side = task.input_shape[-1]
    with seeded(seed):
        made = creep(Network(side), task.example(2), seed=seed)
        size = parameter_count(made["level 1"])
        filters = min(range(1, 4 * OUTER), key=lambda n: abs(parameter_count(Network(side, n)) - size))
        made["level 0, as many parameters"] = Network(side, filters)
        made["level 0 with ReLU"] = Network(side, relu=True)
    return made


def measure(scale: Scale) -> list[dict[str, Any]]:
    task = padded(named_task("digits"))
    rows = []
    for seed in scale.seeds:
        for arm, network in arms(task, seed).items():
            Fit(epochs=10, batch_size=32, lr=1e-2, seed=seed)(network.to(scale.device), task)
            row = {"arm": arm, "seed": seed, "parameters": parameter_count(network)}
            if arm == "level 1":
                row["error"] = largest_error(network, task.example(8)[0].to(scale.device))
            rows.append({**row, **evaluate(network, task, "test")})
    return rows


@torch.no_grad()
def largest_error(network: nn.Module, x: Tensor) -> float:
    """Of the first trained quanvolution, in float64: its circuits against conv2d, over the largest value."""
    layer = next(m for m in network.modules() if isinstance(m, Quanvolution)).double()
    expected, found = layer.simulate(x.double()), layer(x.double())
    layer.float()
    return ((found - expected).abs().max() / expected.abs().max()).item()


def judge(rows: list[dict[str, Any]]) -> Measured:
    others = [arm for arm in arms_of(rows) if arm != "level 1"]
    figures: dict[str, Any] = differences(rows, "level 1", others, ("accuracy",))
    figures |= differences(rows, "level 0", ("level 2", "constrained"), ("accuracy",))
    pooled = (
        (spread(rows, "level 1", "accuracy") ** 2 + spread(rows, "constrained", "accuracy") ** 2) / 2
    ) ** 0.5
    figures[EXPLAINED] = figures["accuracy: level 1 less constrained"]["mean"] / max(pooled, 1e-9)
    figures[ERROR] = max(row["error"] for row in rows if "error" in row)
    bed = {
        "accuracy of level 0": mean(rows, "level 0", "accuracy"),
        **differences(rows, "level 0", ("level 1",), ("accuracy",)),
    }
    said = ", ".join(
        f"{arm} {100 * mean(rows, arm, 'accuracy'):.1f} % ({mean(rows, arm, 'parameters'):,.0f} parameters)"
        for arm in arms_of(rows)
    )
    return Measured(
        summary=f"test accuracy: {said}",
        figures=figures,
        bed=bed,
        notes=(
            "Levels 0 and 1 are linear maps of the pixels, whatever the circuits look like. A quanvolution's "
            "kernel is symmetric, positive semi-definite and of rank 2 at most, so that no filter can tell an "
            "edge's direction by its sign; 'constrained' learns such kernels without any circuit."
        ),
    )
