"""Trees over binary kernels, drawn together by training, not at all, or at random: operations, depth, accuracy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netwright.claims.beds.quartered import quartered
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import difference, estimate, mean, paired, told
from netwright.compress.mst_bnn import MstBnn, plans, reusing
from netwright.compress.mst_bnn.layers import Reused
from netwright.compress.mst_bnn.tree import at_random, plan
from netwright.compress.parts.binary import packed
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.taps import Taps
from netwright.core.task import Task
from netwright.models import build

PENALTIES = (0.3, 1.0, 2.0, 4.0)
ALLOWED = 0.003  # of validation accuracy, on average over seeds, for a penalty to be taken
OPERATIONS = "operations: drawn over untrained"
EQUAL = "largest difference of sums"
CLAIM = Claim(
    slug="mst-bnn",
    seeds=5,
    paper="large cuts of bit operations and of parameters at a negligible loss of accuracy",
    setting=(
        "a CNN with batch norm of widths 16, 32, 64, 64 on 4,000 images of Fashion-MNIST at 14 x 14, trained in float, "
        "then with signs (Bi-Real Net's operator) for 8 epochs from those weights, plain and with kernels drawn "
        "together after a third of them; of four penalties the largest is taken that loses at most 0.3 points of "
        "validation accuracy against plain on average over the seeds; five seeds of data, weights and order; "
        "operations of a place, and the depth of the deepest layer's tree; random trees over the plain kernels; sums "
        "along the trees against direct ones on 50 images"
    ),
    rule=Rule(
        holds=(
            Part(OPERATIONS, "at most", 0.7),
            Part("accuracy: drawn less plain", "at least", -0.005),
            Part(EQUAL, "at most", 0),
        ),
        bed=(
            Part("accuracy of plain", "at least", 0.7),
            Part("operations: random over untrained", "at least", 1.05),
        ),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    return [row for seed in scale.seeds for row in of_seed(seed)]


def of_seed(seed: int, images: int = 4000, epochs: float = 8) -> list[dict[str, Any]]:
    task = quartered(images, 4000, seed)
    with seeded(seed):
        network = build("cnn", task.input_shape, task.outputs, widths=(16, 32, 64, 64))
    Fit(epochs=epochs, batch_size=64, lr=3e-3, seed=seed)(network, task)
    rows: list[dict[str, Any]] = [
        {"arm": "float", "seed": seed, "accuracy": evaluate(network, task, "test")["accuracy"]}
    ]
    for penalty in (0.0, *PENALTIES):
        method = MstBnn(penalty=penalty, epochs=epochs, batch_size=64, every=20, seed=seed)
        small = packed(method.trained(network, task, Budget().start()))
        rows.append({"arm": arm_of(penalty), "seed": seed, **measured(small, task)})
        if not penalty:
            rows.append({"arm": "random tree", "seed": seed, "operations": random_operations(small, seed)})
    return rows


def arm_of(penalty: float) -> str:
    return f"penalty {penalty:g}" if penalty else "plain"


def taken(rows: list[dict[str, Any]]) -> str:
    """The arm of the largest penalty that loses no more than ALLOWED of validation accuracy on average."""
    least = mean(rows, "plain", "val") - ALLOWED
    return arm_of(max(p for p in (0.0, *PENALTIES) if mean(rows, arm_of(p), "val") >= least))


def measured(network: nn.Module, task: Task) -> dict[str, Any]:
    """network: with bits, without trees."""
    along = reusing(network)
    found = list(plans(along).values())
    return {
        "accuracy": evaluate(along, task, "test")["accuracy"],
        "val": evaluate(along, task, "val")["accuracy"],
        "operations": sum(p.operations for p in found) / sum(p.direct for p in found),
        "depth": max(p.tree.depth for p in found), **sums(along, task.example(50)),
    }  # fmt: skip


def random_operations(network: nn.Module, seed: int) -> float:
    """The share of operations that random trees leave."""
    layers = [m for m in reusing(network).modules() if isinstance(m, Reused)]
    found = [plan(m.rows(), at_random(len(m.rows()), seed)) for m in layers]
    return sum(p.operations for p in found) / sum(p.direct for p in found)


def sums(network: nn.Module, example: tuple[Tensor, ...]) -> dict[str, float]:
    """The largest difference of the sums along the trees from direct ones, over all layers, and how long both take with
    words of signs as 1."""
    layers = {name: m for name, m in network.named_modules() if isinstance(m, Reused)}
    worst, slower = 0.0, []
    with torch.no_grad(), Taps(network, list(layers), inputs=True) as taps:
        network(*example)
        for name, layer in layers.items():
            x = taps[name]
            worst = max(worst, float((layer.sums(x) - layer.layer.sums(x)).abs().max()))
            slower.append(_seconds(layer, x) / _seconds(layer.layer, x))
    return {"difference": worst, "slower": float(np.median(slower))}


def _seconds(layer: nn.Module, x: Tensor) -> float:
    spent = []
    for _ in range(5):
        start = time.process_time()
        layer(x)
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def judge(rows: list[dict[str, Any]]) -> Measured:
    rows = [*rows, *({**row, "arm": "drawn"} for row in rows if row["arm"] == taken(rows))]
    ratio = lambda arm: estimate(
        [
            1 + gap / mean_
            for gap, mean_ in zip(paired(rows, arm, "plain", "operations"), _plain(rows), strict=True)
        ],
        "paired t",
    )
    figures: dict[str, Any] = {
        OPERATIONS: ratio("drawn"),
        "accuracy: drawn less plain": difference(rows, "drawn", "plain", "accuracy"),
        "depth: drawn less plain": difference(rows, "drawn", "plain", "depth"),
        EQUAL: max(row.get("difference", 0.0) for row in rows),
        "operations left of direct ones, plain": mean(rows, "plain", "operations"),
        "operations left of direct ones, drawn": mean(rows, "drawn", "operations"),
        "depth, plain": mean(rows, "plain", "depth"),
        "times as long as words of signs, plain": mean(rows, "plain", "slower"),
        "times as long as words of signs, drawn": mean(rows, "drawn", "slower"),
    }
    for arm in map(arm_of, PENALTIES):
        figures[f"operations: {arm} over untrained"] = ratio(arm)
        figures[f"accuracy: {arm} less plain"] = difference(rows, arm, "plain", "accuracy")
    plain, drawn = (100 * figures[f"operations left of direct ones, {arm}"] for arm in ("plain", "drawn"))
    slower = figures["times as long as words of signs, drawn"]
    return Measured(
        summary=(
            f"of the direct operations trees leave {plain:.1f} % over plain kernels and {drawn:.1f} % over drawn ones, "
            f"{figures[OPERATIONS]['mean']:.2f} times as many ({taken(rows)}), at "
            f"{told(figures['accuracy: drawn less plain'])} points of accuracy; sums differ by "
            f"{figures[EQUAL]:g}; on a processor they take {slower:.1f} times as long as words of signs"
        ),
        figures=figures,
        bed={
            "accuracy of float": mean(rows, "float", "accuracy"),
            "accuracy of plain": mean(rows, "plain", "accuracy"),
            "operations: random over untrained": ratio("random tree"),
        },
        notes=(
            "Operations are additions of signs for one place of the output, as an adder of a circuit makes them; a "
            "processor adds 64 signs at once, with or without a tree."
        ),
    )


def _plain(rows: list[dict[str, Any]]) -> list[float]:
    found = {row["seed"]: row["operations"] for row in rows if row["arm"] == "plain"}
    return [found[seed] for seed in sorted(found)]
