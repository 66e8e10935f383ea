"""What the paper of Cyclical Curriculum Learning says, measured here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import arms_of, difference, differences, mean, told
from netwright.core import progress
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised
from netwright.data import task as named_task
from netwright.models import build
from netwright.train.cyclical_curriculum import CyclicalCurriculum

CLAIM = Claim(
    slug="cyclical-curriculum",
    seeds=10,
    paper="better than training without a curriculum on 18 data sets and 15 architectures",
    setting=(
        "Fashion-MNIST, 2,000 training and 5,000 test images, one network (CNN 16-32-64), 10 seeds; Adam 1e-3 at batch "
        "128 without decay of the rate and without augmentation; 20 epochs after 20 epochs for the scores; every arm "
        "but 'vanilla' is charged 40 epochs, 'vanilla, double budget' trains for all of them, 'rescored while "
        "training' trains 20 and pays for its scores; last-epoch accuracy on test data, nothing selected on it"
    ),
    rule=Rule(
        holds=(
            Part("accuracy: cyclical curriculum less vanilla, double budget", "above"),
            Part("accuracy: cyclical curriculum less random cycling", "above"),
        ),
        mixed=((Part("accuracy: cyclical curriculum less vanilla, double budget", "above"),),),
        bed=(Part("accuracy of vanilla, double budget", "at least", 0.8),),
    ),
)
EPOCHS = 20.0
FIT = Fit(schedule="constant", weight_decay=0.0, augment=False)


def arms(network: nn.Module, task: Task, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Every way of training, from the same new weights."""
    ours = CyclicalCurriculum(epochs=EPOCHS, fit=FIT, seed=seed)
    ways = {
        "cyclical curriculum": ours,
        "sharp cycle": replace(ours, cycle="sharp"),
        "rescored while training": replace(ours, rescore=True),
        "random cycling": replace(ours, order="random", epochs=2 * EPOCHS),
        "one way up": replace(ours, cycle="grow"),
        "hard first": replace(ours, order="hard"),
    }
    for name, way in ways.items():
        yield name, way(network, task, Budget())
    for name, epochs in (("vanilla", EPOCHS), ("vanilla, double budget", 2 * EPOCHS)):
        trained = reinitialised(network, seed + 1)
        replace(FIT, epochs=epochs, seed=seed)(trained, task)
        yield name, trained


def measure(scale: Scale) -> list[dict[str, Any]]:
    task = named_task("fashion-mnist", limit=2000)
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        with seeded(seed):
            network = build("cnn", task.input_shape, task.outputs, widths=(16, 32, 64)).to(scale.device)
        for arm, trained in arms(network, task, seed):
            rows.append({"arm": arm, "seed": seed, **evaluate(trained, task, "test")})
            progress.step(len(rows), 8 * len(scale.seeds), arm)
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    others = [arm for arm in arms_of(rows) if arm != "cyclical curriculum"]
    gains = differences(rows, "cyclical curriculum", others, ("accuracy",))
    free = gains["accuracy: cyclical curriculum less vanilla"]
    return Measured(
        summary=(
            f"the curriculum is {told(gains['accuracy: cyclical curriculum less vanilla, double budget'])} points from "
            f"vanilla with the same total budget, {100 * free['mean']:+.2f} from vanilla with the scores given free"
        ),
        figures=gains,
        bed={
            "accuracy of vanilla, double budget": mean(rows, "vanilla, double budget", "accuracy"),
            "what doubling its epochs adds": difference(
                rows, "vanilla, double budget", "vanilla", "accuracy"
            ),
        },
        notes="The paper's comparison gives the scores' training free of charge; here it is charged.",
    )
