"""A 3x3 convolution of signs beside PyTorch's of floats of the same shape, one thread, one image.

    python benchmarks/binary_conv.py [--rounds 60] [--out docs/benchmarks/binary_conv.json]

Random weights, floats in and floats out: what is timed holds inputs against their thresholds, packs them, counts,
scales. Both in turn, A B A B: the figure is the median of the ratios round by round, in seconds of the processor,
which other work on the machine disturbs less, and by the clock. Packing alone is timed too. Before that, sums are
held against those of float64.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from netwright.core.network import seeded
from netwright.core.weights.binary import BinaryConv
from netwright.core.weights.popcount import pack_channels
from result import write

SHAPES = ((64, 56), (64, 32), (128, 28), (256, 14))  # channels in and out, side of the image
REPEATS = 5  # passes in a row, timed together


def timed(runs: list[Any], rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the processor and by the clock of a pass of each, in turn: (rounds, runs) both."""
    spent, clock = [], []
    for _ in range(rounds):
        marks = []
        for run in runs:
            start = time.process_time(), time.perf_counter()
            for _ in range(REPEATS):
                run()
            marks.append((time.process_time() - start[0], time.perf_counter() - start[1]))
        spent.append([m[0] / REPEATS for m in marks])
        clock.append([m[1] / REPEATS for m in marks])
    return np.array(spent[3:]), np.array(clock[3:])


def beside(channels: int, side: int, rounds: int) -> dict[str, Any]:
    with seeded(0):
        layer = BinaryConv(
            torch.randn(channels, channels, 3, 3), torch.zeros(channels), torch.rand(channels) + 0.5,
            padding=(1, 1),
        )  # fmt: skip
        x = torch.randn(1, channels, side, side)
        plain = nn.Conv2d(channels, channels, 3, padding=1, bias=False).eval()
    planes = np.empty((-(-channels // 64), side * side), np.uint64)
    image, least = x[0].reshape(channels, -1).numpy(), layer.threshold.numpy()
    with torch.inference_mode():
        exact = F.conv2d(layer.signs(x).double(), layer.weight().double(), None, 1, 1).float()
        equal = torch.equal(layer(x), layer.finished(exact))
        runs = [lambda: plain(x), lambda: layer(x), lambda: pack_channels(image, least, planes)]
        spent, clock = timed(runs, rounds)
    faster = spent[:, 0] / spent[:, 1]
    low, high = np.quantile(faster, (0.1, 0.9))
    micro = 1e6 * np.median(spent, 0)
    return {
        "channels": channels, "image": side, "microseconds_float": micro[0], "microseconds_signs": micro[1],
        "of_which_packing": micro[2], "faster": float(np.median(faster)), "faster_10%": low, "faster_90%": high,
        "faster_clock": float(np.median(clock[:, 0] / clock[:, 1])), "bytes_float": 4 * 9 * channels**2,
        "bytes_signs": layer.nbytes, "sums_equal": equal,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/binary_conv.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "what": "a binary 3x3 convolution, inputs packed inside, beside PyTorch's in float32, one thread, one image",
        "shapes": [beside(channels, side, options.rounds) for channels, side in SHAPES],
    }
    write(options.out, result)


if __name__ == "__main__":
    main()
