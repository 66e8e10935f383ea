"""What is said of random pruning, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.compress.pruning import SETTING, prune_arm, pruned
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference

RATIO = 0.5
CLAIM = Claim(
    slug="random-pruning",
    paper=(
        "after fine-tuning, pruning at random comes as close as any criterion: networks are plastic, the score matters "
        "little (arXiv 1801.10447)"
    ),
    setting=SETTING.format(percent=50),
    holds_if="mean test accuracy within 0.5 point of both Taylor's and magnitude's",
)


def measure(scale: Scale) -> Measured:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        arms = {name: prune_arm(name, RATIO, seed) for name in ("random", "taylor", "magnitude")}
        rows += pruned(arms, seed, scale.device, scratch_of="random")[0]
    others = ("taylor", "magnitude", "same shape from scratch", "unpruned")
    gains = {f"accuracy over {name}": difference(rows, "random", name, "accuracy") for name in others}
    near = [gains[f"accuracy over {name}"]["mean"] > -0.005 for name in ("taylor", "magnitude")]
    say = lambda name: f"{100 * gains[f'accuracy over {name}']['mean']:+.2f}"
    return Measured(
        rows=rows,
        verdict="holds" if all(near) else "mixed" if any(near) else "does not hold here",
        summary=(
            f"with 50 % of the operations gone and 2 epochs of fine-tuning, random is {say('taylor')} points from "
            f"Taylor, {say('magnitude')} from magnitude and {say('same shape from scratch')} from the same shape "
            f"trained from scratch"
        ),
        figures=gains,
    )
