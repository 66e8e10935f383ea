"""What is said of 8-bit quantisation after training, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.deployed import deployed, onnx_runtime_static
from netwright.claims.beds.trained import testbed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import difference, differences, mean
from netwright.compress.static_int8 import StaticInt8
from netwright.core.budget import Budget

GOOD = (
    Part("bytes over float", "at most", 0.33),
    Part("accuracy: static-int8 less float", "at least", -0.005),
    Part("accuracy: static-int8 less ONNX Runtime static", "at least", -0.003),
)
FAST = (Part("time over float, upper end of the slowest seed", "at most", 1),)
CLAIM = Claim(
    slug="static-int8",
    paper="low-precision integers in place of floats: memory and latency smaller by 4 to 8 times in practice",
    setting=(
        "residual CNN of depth 8 and width 16, Fashion-MNIST at 28x28, 10,000 training images, 256 of them for "
        "calibration; float and int8 ONNX files run in turn in ONNX Runtime, one thread, batch 1; 5,000 test images"
    ),
    rule=Rule(holds=(*GOOD, *FAST), mixed=(GOOD, FAST), bed=(Part("accuracy of float", "at least", 0.8),)),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows = []
    for seed in scale.seeds:
        network, task = testbed("fashion-resnet", seed)
        arms = {"float": network, "static-int8": StaticInt8(seed=seed)(network, task, Budget())}
        arms |= {
            f"static-int8, {kind}": StaticInt8(range=kind, seed=seed)(network, task, Budget())
            for kind in ("percentile", "mse")
        }
        found = deployed(arms, task, {"ONNX Runtime static": onnx_runtime_static})
        rows += [{**row, "seed": seed} for row in found]
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    smaller = mean(rows, "static-int8", "bytes") / mean(rows, "float", "bytes")
    ratio, peer = mean(rows, "static-int8", "time"), mean(rows, "ONNX Runtime static", "time")
    figures: dict[str, Any] = differences(
        rows, "static-int8", ("float", "ONNX Runtime static"), ("accuracy",)
    )
    drop, beside = (
        figures[f"accuracy: static-int8 less {o}"]["mean"] for o in ("float", "ONNX Runtime static")
    )
    figures |= {
        "bytes over float": smaller, "time over float": ratio, "time over float, ONNX Runtime static": peer,
        "time over float, upper end of the slowest seed": max(
            row["time_high"] for row in rows if row["arm"] == "static-int8"
        ),
        **{
            f"accuracy: static-int8, {kind} less float": difference(rows, f"static-int8, {kind}", "float", "accuracy")
            for kind in ("percentile", "mse")
        },
    }  # fmt: skip
    return Measured(
        summary=(
            f"{1 / smaller:.1f} times smaller, {1 / ratio:.2f} times the speed of float, accuracy {100 * drop:+.2f} "
            f"points; ONNX Runtime's own tool: {1 / peer:.2f} times the speed, ours {100 * beside:+.2f} points "
            "against it"
        ),
        figures=figures,
        bed={"accuracy of float": mean(rows, "float", "accuracy")},
        notes=(
            "Speed depends on the processor: with VNNI, 8-bit products are fast; without it (AVX2 alone) the same "
            "file is slower than float. The factor 4 of size falls short by scales, biases and the graph itself, "
            "which weigh in a network this small."
        ),
    )
