"""What is said of dynamic quantisation, measured here on a small transformer."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.deployed import deployed, onnx_runtime_dynamic
from netwright.claims.beds.trained import testbed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean
from netwright.compress.dynamic_int8 import DynamicInt8
from netwright.compress.static_int8 import StaticInt8
from netwright.core.budget import Budget

ACCURATE = tuple(
    Part(f"accuracy: dynamic-int8 less {other}", "at least", -limit)
    for other, limit in (("static-int8", 0.003), ("float", 0.005), ("ONNX Runtime dynamic", 0.005))
)
CLAIM = Claim(
    slug="dynamic-int8",
    paper="ranges taken at run time give higher accuracy than ranges fixed beforehand, at the cost of finding them",
    setting=(
        "vision transformer of about 140,000 parameters on digits (8x8); ONNX files run in turn in ONNX Runtime, "
        "one thread, batch 1; accuracy on the test split; calibration of the static arm on 256 training images"
    ),
    rule=Rule(
        holds=(*ACCURATE, Part("bytes over float", "at most", 0.4)),
        mixed=(ACCURATE,),
        bed=(Part("accuracy of float", "at least", 0.9),),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
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
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    against = differences(
        rows, "dynamic-int8", ("float", "static-int8", "ONNX Runtime dynamic"), ("accuracy",)
    )
    points = lambda arm: f"{100 * against[f'accuracy: dynamic-int8 less {arm}']['mean']:+.2f}"
    smaller = mean(rows, "dynamic-int8", "bytes") / mean(rows, "float", "bytes")
    times = {arm: mean(rows, arm, "time") for arm in ("dynamic-int8", "static-int8", "ONNX Runtime dynamic")}
    return Measured(
        summary=(
            f"accuracy {points('float')} points against float, {points('static-int8')} against static int8; "
            f"{1 / smaller:.1f} times smaller; speed against float {1 / times['dynamic-int8']:.2f} (static "
            f"{1 / times['static-int8']:.2f}, ONNX Runtime's dynamic {1 / times['ONNX Runtime dynamic']:.2f})"
        ),
        figures={
            **against,
            "bytes over float": smaller,
            **{f"time over float, {arm}": t for arm, t in times.items()},
        },
        bed={"accuracy of float": mean(rows, "float", "accuracy")},
        notes=(
            "One range serves a whole batch, so accuracy was taken at batch 100; at batch 1 it can only rise. Speed "
            "depends on the processor, which the result names, and its instruction sets."
        ),
    )
