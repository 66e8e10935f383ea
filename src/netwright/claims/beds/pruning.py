"""What the pruning claims share: one converged network, the criteria at equal size and equal fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from netwright.claims.beds.trained import convergence, fresh, testbed
from netwright.claims.record import Scale
from netwright.claims.rule import Part
from netwright.claims.statistics import differences, mean
from netwright.compress.parts.prune import Prune
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.measure.cost import cost
from netwright.core.metrics import evaluate
from netwright.core.network import clone
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised

BED = "fashion"
EPOCHS = 0.5
SETTING = (
    "Fashion-MNIST, ResNet-8 of width 16 trained to the end on all 60,000 images (the bed 'fashion'); {percent} % of "
    "the multiply-accumulates removed at once, globally, counts not rounded; half an epoch of fine-tuning (AdamW 1e-3, "
    "cosine) for every arm, and for the unpruned network as a control; accuracy on the 5,000 test images, nothing "
    "selected on them"
)
FULL = "also the same shape trained from new weights, for as many epochs as network and fine-tuning together"

# on a network that is not at its best yet, fine-tuning goes on training and hides what pruning took
CONVERGED = (
    Part("accuracy before", "at least", 0.92),
    Part("gained in the last quarter of training", "at most", 0.003),
    Part("accuracy: unpruned, fine-tuned less unpruned", "at most", 0.005),
)


def bed_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far the network had converged, and what the fine-tuning adds where nothing was pruned."""
    return {
        "accuracy before": mean(rows, "unpruned", "accuracy"),
        "gained in the last quarter of training": mean(rows, "unpruned", "last_quarter"),
        **differences(rows, "unpruned, fine-tuned", ("unpruned",), ("accuracy",)),
    }


def prune_arm(importance: str, ratio: float, seed: int, **settings: Any) -> Prune:
    return Prune(importance=importance, ratio=ratio, round_to=1, seed=seed, **{"epochs": EPOCHS, **settings})  # type: ignore[arg-type]


def row(arm: str, seed: int, network: nn.Module, task: Task, before: nn.Module) -> dict[str, Any]:
    """Accuracy and size of one arm."""
    example = task.example(1)
    small, large = cost(network, example), cost(before, example)
    return {
        "arm": arm, "seed": seed, "accuracy": evaluate(network, task, "test")["accuracy"],
        "macs_kept": small.macs / large.macs, "parameters_kept": small.parameters / large.parameters,
    }  # fmt: skip


def pruned(
    arms: dict[str, Prune], seed: int, scale: Scale, *, scratch_of: str | None = None
) -> tuple[list[dict[str, Any]], nn.Module, Task]:
    """Rows of the arms from the same trained network, the network itself as arm 'unpruned', and its task.

    scratch_of: an arm whose shape is also trained from new weights at the full scale, for the large network's epochs
    and the fine-tuning's together, with the large network's recipe.
    """
    network, task = testbed(BED, seed, scale.device)
    network = network.to(scale.device)
    longer = clone(network)
    Fit(epochs=EPOCHS, lr=Prune.lr, batch_size=Prune.batch_size, seed=seed)(longer, task)
    rows = [
        {
            **row("unpruned", seed, network, task, network),
            "last_quarter": convergence(BED, seed).last_quarter,
        },
        row("unpruned, fine-tuned", seed, longer, task, network),
    ]
    for name, method in arms.items():
        small = method(network, task, Budget())
        rows.append(row(name, seed, small, task, network))
        if name == scratch_of and scale.name == "full":
            recipe = fresh(BED, seed)[2]
            new = reinitialised(small, seed + 1)
            replace(recipe, epochs=recipe.epochs + EPOCHS)(new, task)
            rows.append(row("same shape from scratch", seed, new, task, network))
    return rows, network, task
