"""What is said of dynamic quantisation, measured here on a small transformer."""

from __future__ import annotations

from netwright.claims.compress.deployed import deployed, onnx_runtime_dynamic
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean
from netwright.claims.testbeds import testbed
from netwright.compress.quantise import DynamicInt8, StaticInt8
from netwright.core.budget import Budget
from netwright.core.machine import instruction_sets, processor_name

CLAIM = Claim(
    slug="dynamic-int8",
    paper="ranges taken at run time give higher accuracy than ranges fixed beforehand, at the cost of finding them",
    setting=(
        "vision transformer of about 140,000 parameters on digits (8x8); ONNX files run in turn in ONNX Runtime, "
        "one thread, batch 1; accuracy on the test split; calibration of the static arm on 256 training images"
    ),
    holds_if=(
        "accuracy is not below that of static int8 by more than 0.3 points nor below float by more than 0.5, the "
        "file is at most 0.4 of the float one, and accuracy is within 0.5 points of ONNX Runtime's own tool"
    ),
)


def measure(scale: Scale) -> Measured:
    rows = []
    for seed in scale.seeds:
        network, task = testbed("digits-vit", seed)
        arms = {
            "float": network,
            "dynamic-int8": DynamicInt8()(network, task, Budget()),
            "static-int8": StaticInt8(seed=seed)(network, task, Budget()),
        }
        found = deployed(arms, task, {"ONNX Runtime dynamic": onnx_runtime_dynamic})
        rows += [{**row, "seed": seed} for row in found]
    against = {
        arm: difference(rows, "dynamic-int8", arm, "accuracy")
        for arm in ("float", "static-int8", "ONNX Runtime dynamic")
    }
    smaller = mean(rows, "dynamic-int8", "bytes") / mean(rows, "float", "bytes")
    times = {arm: mean(rows, arm, "time") for arm in ("dynamic-int8", "static-int8", "ONNX Runtime dynamic")}
    accurate = (
        against["float"]["mean"] >= -0.005
        and against["static-int8"]["mean"] >= -0.003
        and against["ONNX Runtime dynamic"]["mean"] >= -0.005
    )
    return Measured(
        rows=rows,
        verdict="holds" if accurate and smaller <= 0.4 else "mixed" if accurate else "does not hold here",
        summary=(
            f"accuracy {100 * against['float']['mean']:+.2f} points against float, "
            f"{100 * against['static-int8']['mean']:+.2f} against static int8; {1 / smaller:.1f} times smaller; "
            f"speed against float {1 / times['dynamic-int8']:.2f} (static {1 / times['static-int8']:.2f}, ONNX "
            f"Runtime's dynamic {1 / times['ONNX Runtime dynamic']:.2f}) on {processor_name()} "
            f"({', '.join(instruction_sets())})"
        ),
        figures={
            **{f"accuracy against {arm}": figure for arm, figure in against.items()},
            "bytes over float": smaller, **{f"time over float, {arm}": t for arm, t in times.items()},
        },
        notes="One range serves a whole batch, so accuracy was taken at batch 100; at batch 1 it can only rise.",
    )  # fmt: skip
