"""What is said of 8-bit quantisation after training, measured here."""

from __future__ import annotations

from netwright.claims.compress.deployed import deployed, onnx_runtime_static
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean
from netwright.claims.testbeds import testbed
from netwright.compress.quantise import StaticInt8
from netwright.core.budget import Budget
from netwright.core.machine import instruction_sets, processor_name

CLAIM = Claim(
    slug="static-int8",
    paper="low-precision integers in place of floats: memory and latency smaller by 4 to 8 times in practice",
    setting=(
        "residual CNN of depth 8 and width 16, Fashion-MNIST at 28x28, 10,000 training images, 256 of them for "
        "calibration; float and int8 ONNX files run in turn in ONNX Runtime, one thread, batch 1; 5,000 test images"
    ),
    holds_if=(
        "the file is at most 0.33 of the float one, accuracy falls by at most 0.5 points and is at most 0.3 points "
        "below ONNX Runtime's own static quantisation, and every seed is faster than float (95 % interval)"
    ),
)


def measure(scale: Scale) -> Measured:
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
    drop = difference(rows, "static-int8", "float", "accuracy")
    beside = difference(rows, "static-int8", "ONNX Runtime static", "accuracy")
    smaller = mean(rows, "static-int8", "bytes") / mean(rows, "float", "bytes")
    ours = [row for row in rows if row["arm"] == "static-int8"]
    fast = all(row["time_high"] < 1 for row in ours)
    good = smaller <= 0.33 and drop["mean"] >= -0.005 and beside["mean"] >= -0.003
    ratio, peer = mean(rows, "static-int8", "time"), mean(rows, "ONNX Runtime static", "time")
    return Measured(
        rows=rows,
        verdict="holds" if good and fast else "mixed" if good or fast else "does not hold here",
        summary=(
            f"{1 / smaller:.1f} times smaller, {1 / ratio:.2f} times the speed of float on {processor_name()} "
            f"({', '.join(instruction_sets())}), accuracy {100 * drop['mean']:+.2f} points; ONNX Runtime's own tool: "
            f"{1 / peer:.2f} times the speed, ours {100 * beside['mean']:+.2f} points against it"
        ),
        figures={
            "accuracy against float": drop, "accuracy against ONNX Runtime static": beside,
            "bytes over float": smaller, "time over float": ratio, "time over float, ONNX Runtime static": peer,
            "accuracy against float, percentile": difference(rows, "static-int8, percentile", "float", "accuracy"),
            "accuracy against float, mse": difference(rows, "static-int8, mse", "float", "accuracy"),
            "instruction sets": list(instruction_sets()),
        },
        notes=(
            "Speed depends on the processor: with VNNI, 8-bit products are fast; without it (AVX2 alone) the same "
            "file is slower than float. The factor 4 of size falls short by scales, biases and the graph itself, "
            "which weigh in a network this small."
        ),
    )  # fmt: skip
