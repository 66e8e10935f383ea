"""What the paper of magnitude pruning says, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.pruning import CONVERGED, SETTING, bed_of, prune_arm, pruned
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences

RATIO = 0.34
CLAIM = Claim(
    slug="magnitude-pruning",
    paper=(
        "VGG-16 on CIFAR-10 keeps its accuracy (93.25 to 93.40 %) when 34 % of its operations go and it is retrained; "
        "the filters with the smallest norm are better to remove than random ones"
    ),
    setting=SETTING.format(percent=34),
    rule=Rule(
        holds=(
            Part("accuracy: magnitude less unpruned", "at least", -0.005),
            Part("accuracy: magnitude less random", "above"),
        ),
        bed=CONVERGED,
    ),
)
OTHERS = ("unpruned", "random", "magnitude, same share of every layer")


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        arms = {
            "magnitude": prune_arm("magnitude", RATIO, seed),
            "magnitude, same share of every layer": prune_arm("magnitude", RATIO, seed, scope="layer"),
            "random": prune_arm("random", RATIO, seed),
        }
        rows += pruned(arms, seed, scale)[0]
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    gains = differences(rows, "magnitude", OTHERS, ("accuracy",))
    say = lambda name: f"{100 * gains[f'accuracy: magnitude less {name}']['mean']:+.2f}"
    return Measured(
        summary=(
            f"with 34 % of the operations gone, magnitude is {say('unpruned')} points from the unpruned network, "
            f"{say('random')} from random pruning and {say('magnitude, same share of every layer')} from removing the "
            f"same share of every layer"
        ),
        figures=gains,
        bed=bed_of(rows),
    )
