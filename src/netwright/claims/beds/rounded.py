"""What claims about rounded weights share: the converged network, its error after rounding, and paired gaps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from netwright.claims.beds.trained import testbed
from netwright.claims.statistics import estimate
from netwright.core.metrics import outputs_of, score
from netwright.core.split import take
from netwright.core.task import Task
from netwright.core.weights.bits import PackedBits

TRAINED, JUDGED, COMPARED = 10_000, 2_000, 256
ERROR = (
    "error is the squared distance of the logits from the float network's over their variance, on "
    f"{JUDGED:,} test images, and its logarithm is averaged over bits"
)


def subject(seed: int) -> tuple[nn.Module, Task, Tensor, dict[str, Any]]:
    """The network in float, its task with fewer images, its test outputs, and its own row."""
    network, task = testbed("fashion", seed)
    task = replace(task, train=take(task.train, TRAINED, seed), test=take(task.test, JUDGED, seed))
    whole, targets = outputs_of(network, task.test)
    return (
        network,
        task,
        whole,
        {"arm": "float", "bits": 32, "seed": seed, **score(whole, targets, task.kind)},
    )


def judged(simulated: nn.Module, packed: nn.Module, task: Task, whole: Tensor) -> dict[str, float]:
    outputs, targets = outputs_of(packed, task.test)
    some = take(task.test, COMPARED)
    again, same = outputs_of(simulated, some)[0], outputs_of(packed, some)[0]
    return {
        "error": error(outputs, whole), "accuracy": score(outputs, targets, task.kind)["accuracy"],
        "difference": float((same - again).abs().max()),
        "bytes": sum(m.nbytes for m in packed.modules() if isinstance(m, PackedBits)),
    }  # fmt: skip


def error(outputs: Tensor, whole: Tensor) -> float:
    spread = (whole - whole.mean(0)).pow(2).sum()
    return float(torch.clamp((outputs - whole).pow(2).sum() / spread, min=1e-12))


def gap(
    rows: list[dict[str, Any]], better: str, worse: str, figure: str, bits: tuple[int, ...]
) -> dict[str, Any]:
    """Mean over bits of the difference, of logarithms for errors, seed by seed, with its interval."""
    at = {(row["arm"], row["bits"], row["seed"]): row.get(figure) for row in rows}
    scaled = math.log if figure == "error" else float
    seeds = sorted({row["seed"] for row in rows})
    differences = [
        sum(scaled(at[better, b, s]) - scaled(at[worse, b, s]) for b in bits) / len(bits) for s in seeds
    ]
    return estimate(differences, "paired t")
