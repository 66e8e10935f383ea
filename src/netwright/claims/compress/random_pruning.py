"""What is said of random pruning, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.pruning import CONVERGED, SETTING, prune_arm, pruned
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean

RATIO = 0.5
CLAIM = Claim(
    slug="random-pruning",
    paper=(
        "after fine-tuning, pruning at random comes as close as any criterion: networks are plastic, the score matters "
        "little (arXiv 1801.10447)"
    ),
    setting=SETTING.format(percent=50),
    rule=Rule(
        holds=tuple(
            Part(f"accuracy: random less {other}", "at least", -0.005) for other in ("taylor", "magnitude")
        ),
        bed=CONVERGED,
    ),
)
OTHERS = ("taylor", "magnitude", "same shape from scratch", "unpruned")


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        arms = {name: prune_arm(name, RATIO, seed) for name in ("random", "taylor", "magnitude")}
        rows += pruned(arms, seed, scale.device, scratch_of="random")[0]
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    gains = differences(rows, "random", OTHERS, ("accuracy",))
    say = lambda name: f"{100 * gains[f'accuracy: random less {name}']['mean']:+.2f}"
    return Measured(
        summary=(
            f"with 50 % of the operations gone and 2 epochs of fine-tuning, random is {say('taylor')} points from "
            f"Taylor, {say('magnitude')} from magnitude and {say('same shape from scratch')} from the same shape "
            f"trained from scratch"
        ),
        figures=gains,
        bed={"accuracy before": mean(rows, "unpruned", "accuracy")},
    )
