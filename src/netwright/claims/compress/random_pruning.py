"""What is said of random pruning, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.pruning import CONVERGED, FULL, SETTING, bed_of, prune_arm, pruned
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import arms_of, differences
from netwright.compress.parts.prune import Prune

RATIO = 0.5
CLAIM = Claim(
    slug="random-pruning",
    paper=(
        "after fine-tuning, pruning at random comes as close as any criterion: networks are plastic, the score matters "
        "little (arXiv 1801.10447)"
    ),
    setting=SETTING.format(percent=50)
    + ". Two arms beside the rule: random and Taylor with two epochs of fine-tuning, since what is said holds after "
    "fine-tuning to the end",
    full=FULL,
    rule=Rule(
        holds=tuple(
            Part(f"accuracy: random less {other}", "at least", -0.005) for other in ("taylor", "magnitude")
        ),
        bed=CONVERGED,
    ),
)
OTHERS = ("taylor", "magnitude", "unpruned")
LONGER = tuple(f"{name}, two epochs" for name in ("random", "taylor"))


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        rows += pruned(arms(seed), seed, scale, scratch_of="random")[0]
    return rows


def arms(seed: int) -> dict[str, Prune]:
    made = {name: prune_arm(name, RATIO, seed) for name in ("random", "taylor", "magnitude")}
    return made | {name: prune_arm(name.partition(",")[0], RATIO, seed, epochs=2) for name in LONGER}


def judge(rows: list[dict[str, Any]]) -> Measured:
    scratch = [arm for arm in arms_of(rows) if arm == "same shape from scratch"]  # at full scale
    gains = differences(rows, "random", (*OTHERS, *scratch), ("accuracy",))
    gains |= differences(rows, LONGER[0], (LONGER[1], "unpruned"), ("accuracy",))
    longer = 100 * gains[f"accuracy: {LONGER[0]} less {LONGER[1]}"]["mean"]
    say = lambda name: f"{100 * gains[f'accuracy: random less {name}']['mean']:+.2f}"
    return Measured(
        summary=(
            f"with 50 % of the operations gone and half an epoch of fine-tuning, random is {say('taylor')} points from "
            f"Taylor, {say('magnitude')} from magnitude and {say('unpruned')} from the unpruned network; with two "
            f"epochs {longer:+.2f} from Taylor"
        ),
        figures=gains,
        bed=bed_of(rows),
        notes=(
            "looked for in the implementation: random differs from the criteria in its scores alone (the same choice "
            "of counts, surgery and fine-tuning), and they are a seeded permutation. What separates them is the length "
            f"of the fine-tuning: two epochs instead of half of one bring random from {say('taylor')} to {longer:+.2f} "
            "points of Taylor, and what is said is said of networks that were fine-tuned to the end"
        ),
    )
