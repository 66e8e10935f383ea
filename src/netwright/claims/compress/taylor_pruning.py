"""What the paper of Taylor pruning says, measured here."""

from __future__ import annotations

from typing import Any

import torch
from scipy.stats import spearmanr
from torch import nn

from netwright.claims.beds.pruning import CONVERGED, FULL, SETTING, bed_of, prune_arm, pruned
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import arms_of, differences, mean
from netwright.core.budget import Budget
from netwright.core.graph import dependencies, mask, trace
from netwright.core.graph.importance import magnitude, taylor
from netwright.core.metrics import outputs_of
from netwright.core.split import take
from netwright.core.task import Task

RATIO = 0.7
CLAIM = Claim(
    slug="taylor-pruning",
    paper=(
        "first-order scores correlate over 93 % with the true change of the loss; ResNet-101 on ImageNet loses 0.02 "
        "points of top-1 accuracy when 40 % of its operations go; better than magnitude at every rate"
    ),
    setting=SETTING.format(percent=70)
    + "; rank correlation of the scores (1,024 training images) with the squared change of the loss on 512 of them "
    "when one unit is zeroed, over all units",
    full=FULL,
    rule=Rule(
        holds=(
            Part("accuracy: taylor less magnitude", "above"),
            Part("accuracy: taylor less random", "above"),
            Part("correlation: taylor less magnitude", "above"),
        ),
        bed=CONVERGED,
    ),
)
OTHERS = ("magnitude", "random", "unpruned")


def oracle(network: nn.Module, task: Task) -> tuple[list[float], dict[str, list[float]]]:
    """Squared change of the loss without each unit, and the scores of each criterion, unit by unit."""
    found = dependencies(trace(network, task.example(2)))
    split = take(task.train, 512, seed=0)

    def loss(subject: nn.Module) -> float:
        outputs, targets = outputs_of(subject, split)
        return task.loss(outputs, targets).item()

    base = loss(network)
    truth = []
    for group in found.groups:
        for unit in range(group.size):
            others = [u for u in range(group.size) if u != unit]
            truth.append((loss(mask(network, {group.name: others}, found)) - base) ** 2)
    scores = {
        "taylor": taylor(network, found.groups, task, 1024, 16, 0, Budget().start()),
        "magnitude": magnitude(network, found.groups),
    }
    return truth, {name: torch.cat([s[g.name] for g in found.groups]).tolist() for name, s in scores.items()}


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        arms = {name: prune_arm(name, RATIO, seed) for name in ("taylor", "magnitude", "random")}
        found, network, task = pruned(arms, seed, scale, scratch_of="taylor")
        truth, scores = oracle(network, task)
        for entry in found:
            if entry["arm"] in scores:
                entry["correlation"] = float(spearmanr(truth, scores[entry["arm"]]).statistic)
        rows += found
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    scratch = [arm for arm in arms_of(rows) if arm == "same shape from scratch"]  # at full scale
    gains = differences(rows, "taylor", (*OTHERS, *scratch), ("accuracy",))
    closer = differences(rows, "taylor", ("magnitude",), ("correlation",))
    say = lambda name: f"{100 * gains[f'accuracy: taylor less {name}']['mean']:+.2f}"
    return Measured(
        summary=(
            f"with 70 % of the operations gone, Taylor is {say('magnitude')} points from magnitude, {say('random')} "
            f"from random and {say('unpruned')} from the unpruned network; rank correlation with the true change of "
            f"the loss {mean(rows, 'taylor', 'correlation'):.2f}, magnitude "
            f"{mean(rows, 'magnitude', 'correlation'):.2f}"
        ),
        figures={**gains, **closer},
        bed=bed_of(rows),
        notes=(
            "The paper prunes a little at a time while training goes on; here all units go at once, which is what a "
            "user with a few epochs can afford. Its magnitude is that of the making filters, ours of all weights of a "
            "unit."
        ),
    )
