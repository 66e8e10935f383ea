"""Whether pruning and quantisation gain independently of each other, measured here."""

from __future__ import annotations

from netwright.claims.compress.deployed import deployed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean
from netwright.claims.testbeds import testbed
from netwright.compress.prune import Prune
from netwright.compress.quantise import StaticInt8
from netwright.core.budget import Budget
from netwright.core.machine import instruction_sets, processor_name

CLAIM = Claim(
    slug="prune-then-int8",
    paper=(
        "AlexNet: 9 times smaller by pruning, 27 times by pruning and quantising, at no loss of accuracy; the two "
        "do not get in each other's way"
    ),
    setting=(
        "residual CNN of depth 8 and width 16, Fashion-MNIST, 10,000 training images; 60 % of the "
        "multiply-accumulates pruned by Taylor importance, 2 epochs of fine-tuning; ONNX files in turn in ONNX "
        "Runtime, one thread, batch 1"
    ),
    holds_if=(
        "int8 costs the pruned network at most 0.5 points, and the pair is smaller and faster than either alone "
        "in every seed"
    ),
)
ARMS = ("float", "prune", "static-int8", "prune-then-int8")


def measure(scale: Scale) -> Measured:
    rows = []
    for seed in scale.seeds:
        network, task = testbed("fashion-resnet", seed)
        pruned = Prune(ratio=0.6, epochs=2, seed=seed)(network, task, Budget())
        quantise = StaticInt8(seed=seed)
        networks = (network, pruned, quantise(network, task, Budget()), quantise(pruned, task, Budget()))
        found = deployed(dict(zip(ARMS, networks, strict=True)), task)
        rows += [{**row, "seed": seed} for row in found]
    cost = difference(rows, "prune-then-int8", "prune", "accuracy")
    best = {
        figure: all(
            both[figure]
            < min(row[figure] for row in rows if row["seed"] == both["seed"] and row["arm"] in ARMS[1:3])
            for both in rows
            if both["arm"] == "prune-then-int8"
        )
        for figure in ("bytes", "time")
    }
    kept = cost["mean"] >= -0.005
    size = {arm: mean(rows, "float", "bytes") / mean(rows, arm, "bytes") for arm in ARMS}
    speed = {arm: 1 / mean(rows, arm, "time") for arm in ARMS}
    return Measured(
        rows=rows,
        verdict="holds" if kept and all(best.values()) else "mixed" if kept else "does not hold here",
        summary=(
            f"smaller by {size['prune']:.1f} (pruned), {size['static-int8']:.1f} (int8), {size['prune-then-int8']:.1f} "
            f"(both); faster by {speed['prune']:.2f}, {speed['static-int8']:.2f}, {speed['prune-then-int8']:.2f}; int8 "
            f"costs the pruned network {-100 * cost['mean']:.2f} points; {processor_name()} "
            f"({', '.join(instruction_sets())})"
        ),
        figures={
            "int8 on the pruned network, accuracy": cost,
            "both against float, accuracy": difference(rows, "prune-then-int8", "float", "accuracy"),
            **{f"times smaller, {arm}": v for arm, v in size.items()},
            **{f"times faster, {arm}": v for arm, v in speed.items()},
        },
    )  # fmt: skip
