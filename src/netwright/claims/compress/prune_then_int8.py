"""Whether pruning and quantisation gain independently of each other, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.deployed import deployed
from netwright.claims.beds.trained import convergence, testbed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import column, differences, mean
from netwright.compress.parts.prune import Prune
from netwright.compress.static_int8 import StaticInt8
from netwright.core.budget import Budget

CLAIM = Claim(
    slug="prune-then-int8",
    paper=(
        "AlexNet: 9 times smaller by pruning, 27 times by pruning and quantising, at no loss of accuracy; the two "
        "do not get in each other's way"
    ),
    setting=(
        "Fashion-MNIST, ResNet-8 of width 16 trained to the end on all 60,000 images (the bed 'fashion'); 60 % of the "
        "multiply-accumulates pruned by Taylor importance, one epoch of fine-tuning; ONNX files in turn in ONNX "
        "Runtime, one thread, batch 1; accuracy on the 5,000 test images"
    ),
    rule=Rule(
        holds=(
            Part("accuracy: prune-then-int8 less prune", "at least", -0.005),
            Part("bytes over the smaller of the two, worst seed", "at most", 1),
            Part("time over the faster of the two, worst seed", "at most", 1),
        ),
        mixed=((Part("accuracy: prune-then-int8 less prune", "at least", -0.005),),),
        bed=(
            Part("accuracy before", "at least", 0.92),
            Part("gained in the last quarter of training", "at most", 0.003),
        ),
    ),
)
BED = "fashion"
ARMS = ("float", "prune", "static-int8", "prune-then-int8")


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows = []
    for seed in scale.seeds:
        network, task = testbed(BED, seed)
        pruned = Prune(ratio=0.6, epochs=1, seed=seed)(network, task, Budget())
        quantise = StaticInt8(seed=seed)
        networks = (network, pruned, quantise(network, task, Budget()), quantise(pruned, task, Budget()))
        found = deployed(dict(zip(ARMS, networks, strict=True)), task)
        shown = {"last_quarter": convergence(BED, seed).last_quarter}
        rows += [{**row, "seed": seed, **(shown if row["arm"] == "float" else {})} for row in found]
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    size = {arm: mean(rows, "float", "bytes") / mean(rows, arm, "bytes") for arm in ARMS}
    speed = {arm: 1 / mean(rows, arm, "time") for arm in ARMS}
    figures = differences(rows, "prune-then-int8", ("prune", "float"), ("accuracy",))
    cost = figures["accuracy: prune-then-int8 less prune"]["mean"]
    return Measured(
        summary=(
            f"smaller by {size['prune']:.1f} (pruned), {size['static-int8']:.1f} (int8), {size['prune-then-int8']:.1f} "
            f"(both); faster by {speed['prune']:.2f}, {speed['static-int8']:.2f}, {speed['prune-then-int8']:.2f}; int8 "
            f"costs the pruned network {-100 * cost:.2f} points"
        ),
        figures={
            **figures,
            "bytes over the smaller of the two, worst seed": worst(rows, "bytes"),
            "time over the faster of the two, worst seed": worst(rows, "time"),
            **{f"times smaller, {arm}": v for arm, v in size.items()},
            **{f"times faster, {arm}": v for arm, v in speed.items()},
        },
        bed={
            "accuracy before": mean(rows, "float", "accuracy"),
            "gained in the last quarter of training": mean(rows, "float", "last_quarter"),
        },
    )


def worst(rows: list[dict[str, Any]], figure: str) -> float:
    """The pair's figure over the better one of pruning and quantising alone, in the seed where it is largest."""
    pair, *alone = (column(rows, arm, figure) for arm in ("prune-then-int8", "prune", "static-int8"))
    return max(pair[seed] / min(one[seed] for one in alone) for seed in pair)
