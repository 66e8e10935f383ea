"""What the paper of Cyclical Curriculum Learning says, measured here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from netwright.claims.beds.trained import fresh
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import arms_of, differences, told
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.initialise import reinitialised
from netwright.core.metrics import evaluate
from netwright.core.task import Task
from netwright.train.cyclical_curriculum import CyclicalCurriculum

CLAIM = Claim(
    slug="cyclical-curriculum",
    paper="better than training without a curriculum on 18 data sets and 15 architectures",
    setting=(
        "one data set (digits, 1,079 training and 359 test images), one network (CNN 16-32-64), 5 seeds; Adam 1e-3 at "
        "batch 128 without decay of the rate, 20 epochs after 20 epochs for the scores; every arm but 'vanilla' is "
        "charged 40 epochs, 'vanilla, double budget' trains for all of them; last-epoch accuracy on test data, "
        "nothing selected on it"
    ),
    rule=Rule(holds=(Part("accuracy: cyclical curriculum less vanilla, double budget", "above"),)),
)
EPOCHS = 20.0
FIT = Fit(schedule="constant", weight_decay=0.0)


def arms(network: nn.Module, task: Task, seed: int) -> dict[str, nn.Module]:
    """Every way of training, from the same new weights."""
    ours = CyclicalCurriculum(epochs=EPOCHS, fit=FIT, seed=seed)
    networks = {
        "cyclical curriculum": ours(network, task, Budget()),
        "random cycling": replace(ours, order="random", epochs=2 * EPOCHS)(network, task, Budget()),
        "one way up": replace(ours, cycle="grow")(network, task, Budget()),
        "hard first": replace(ours, order="hard")(network, task, Budget()),
    }
    for name, epochs in (("vanilla", EPOCHS), ("vanilla, double budget", 2 * EPOCHS)):
        networks[name] = reinitialised(network, seed + 1)
        replace(FIT, epochs=epochs, seed=seed)(networks[name], task)
    return networks


def measure(scale: Scale) -> list[dict[str, Any]]:
    seeds = scale.seeds if len(scale.seeds) > 3 else tuple(range(5))
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        network, task, _ = fresh("digits-cnn", seed)
        for arm, trained in arms(network.to(scale.device), task, seed).items():
            rows.append({"arm": arm, "seed": seed, **evaluate(trained, task, "test")})
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
        notes="The paper's comparison gives the scores' training free of charge; here it is charged.",
    )
