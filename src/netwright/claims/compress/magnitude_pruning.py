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
    setting=SETTING.format(percent=34)
    + ". Two arms beside the rule: the paper's own score (the filters' norm alone; ours is that of all weights that "
    "make or read a unit), and magnitude with two epochs of fine-tuning, since the paper retrains for longer",
    rule=Rule(
        holds=(
            Part("accuracy: magnitude less unpruned", "at least", -0.005),
            Part("accuracy: magnitude less random", "above"),
        ),
        bed=CONVERGED,
    ),
)
LONGER = "magnitude, two epochs"
OTHERS = ("unpruned", "random", "magnitude, same share of every layer", "filters", LONGER)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        arms = {
            "magnitude": prune_arm("magnitude", RATIO, seed),
            "magnitude, same share of every layer": prune_arm("magnitude", RATIO, seed, scope="layer"),
            "random": prune_arm("random", RATIO, seed),
            "filters": prune_arm("filters", RATIO, seed),
            LONGER: prune_arm("magnitude", RATIO, seed, epochs=2),
        }
        rows += pruned(arms, seed, scale)[0]
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    gains = differences(rows, "magnitude", OTHERS, ("accuracy",))
    gains |= differences(rows, LONGER, ("unpruned",), ("accuracy",))
    longer = 100 * gains[f"accuracy: {LONGER} less unpruned"]["mean"]
    say = lambda name: f"{100 * gains[f'accuracy: magnitude less {name}']['mean']:+.2f}"
    return Measured(
        summary=(
            f"with 34 % of the operations gone, magnitude is {say('unpruned')} points from the unpruned network, "
            f"{say('random')} from random pruning and {say('magnitude, same share of every layer')} from removing the "
            f"same share of every layer and {say('filters')} from the paper's own score; with two epochs of "
            f"fine-tuning {longer:+.2f} from the unpruned network"
        ),
        figures=gains,
        bed=bed_of(rows),
        notes=(
            "looked for in the implementation: the paper's own score does no better than ours, nor does the same share "
            f"of every layer. Fine-tuning is what is short: after two epochs {longer:+.2f} points are missing where "
            "half a point is allowed (the paper retrains for 40). From random pruning the three seeds do not separate "
            f"it: {say('random')} points with an interval of several"
        ),
    )
