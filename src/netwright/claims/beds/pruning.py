"""What the pruning claims share: one trained CNN, the criteria side by side at equal size and equal fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from netwright.claims.beds.trained import fresh, testbed
from netwright.claims.rule import Part
from netwright.compress.parts.prune import Prune
from netwright.core.budget import Budget
from netwright.core.measure.cost import cost
from netwright.core.metrics import evaluate
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised

BED = "fashion-cnn"
EPOCHS = 2.0
SETTING = (
    "Fashion-MNIST, 10,000 training images, CNN 16-32-64 with batch norm trained 5 epochs; {percent} % of the "
    "multiply-accumulates removed at once, globally, counts not rounded; 2 epochs of fine-tuning (AdamW 1e-3, cosine) "
    "for every arm; accuracy on the 5,000 test images, nothing selected on them"
)

# on a network that is not at its best yet, fine-tuning goes on training and hides what pruning took
CONVERGED = (Part("accuracy before", "at least", 0.9),)


def prune_arm(importance: str, ratio: float, seed: int, **settings: Any) -> Prune:
    return Prune(importance=importance, ratio=ratio, epochs=EPOCHS, round_to=1, seed=seed, **settings)  # type: ignore[arg-type]


def row(arm: str, seed: int, network: nn.Module, task: Task, before: nn.Module) -> dict[str, Any]:
    """Accuracy and size of one arm."""
    example = task.example(1)
    small, large = cost(network, example), cost(before, example)
    return {
        "arm": arm, "seed": seed, "accuracy": evaluate(network, task, "test")["accuracy"],
        "macs_kept": small.macs / large.macs, "parameters_kept": small.parameters / large.parameters,
    }  # fmt: skip


def pruned(
    arms: dict[str, Prune], seed: int, device: str, *, scratch_of: str | None = None
) -> tuple[list[dict[str, Any]], nn.Module, Task]:
    """Rows of the arms from the same trained network, the network itself as arm 'unpruned', and its task.

    scratch_of: an arm whose shape is also trained from new weights, for the large network's epochs and the
    fine-tuning's together, with the large network's recipe.
    """
    network, task = testbed(BED, seed)
    network = network.to(device)
    rows = [row("unpruned", seed, network, task, network)]
    for name, method in arms.items():
        small = method(network, task, Budget())
        rows.append(row(name, seed, small, task, network))
        if name == scratch_of:
            recipe = fresh(BED, seed)[2]
            new = reinitialised(small, seed + 1)
            replace(recipe, epochs=recipe.epochs + EPOCHS)(new, task)
            rows.append(row("same shape from scratch", seed, new, task, network))
    return rows, network, task
