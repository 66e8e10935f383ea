"""What the paper of magnitude pruning says, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.compress.pruning import SETTING, prune_arm, pruned
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference

RATIO = 0.34
CLAIM = Claim(
    slug="magnitude-pruning",
    paper=(
        "VGG-16 on CIFAR-10 keeps its accuracy (93.25 to 93.40 %) when 34 % of its operations go and it is retrained; "
        "the filters with the smallest norm are better to remove than random ones"
    ),
    setting=SETTING.format(percent=34),
    holds_if=(
        "mean test accuracy within 0.5 point of the unpruned network's, and above random pruning's, the 95 % bootstrap "
        "interval of the paired difference excluding zero"
    ),
)


def measure(scale: Scale) -> Measured:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        arms = {
            "magnitude": prune_arm("magnitude", RATIO, seed),
            "magnitude, same share of every layer": prune_arm("magnitude", RATIO, seed, scope="layer"),
            "random": prune_arm("random", RATIO, seed),
        }
        rows += pruned(arms, seed, scale.device)[0]
    others = ("unpruned", "random", "magnitude, same share of every layer")
    gains = {f"accuracy over {name}": difference(rows, "magnitude", name, "accuracy") for name in others}
    keeps = gains["accuracy over unpruned"]["mean"] > -0.005
    better = gains["accuracy over random"]["interval"][0] > 0
    say = lambda name: f"{100 * gains[f'accuracy over {name}']['mean']:+.2f}"
    return Measured(
        rows=rows,
        verdict="holds" if keeps and better else "mixed" if keeps or better else "does not hold here",
        summary=(
            f"with 34 % of the operations gone, magnitude is {say('unpruned')} points from the unpruned network, "
            f"{say('random')} from random pruning and {say('magnitude, same share of every layer')} from removing the "
            f"same share of every layer"
        ),
        figures=gains,
        notes=(
            "The unpruned network was trained for 5 epochs and is not at its best, so that fine-tuning also goes on "
            "training; every arm has the same of it."
        ),
    )
