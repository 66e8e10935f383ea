"""A layer that follows what changes of its input, beside the dense one; one thread, PyTorch, float32.

    python benchmarks/delta_frames.py [--rounds 60] [--out docs/benchmarks/delta_frames.json]

Random weights and inputs; a share of the inputs changes from frame to frame, at random places or all in one square, as
behind a moving thing. Dense and deltas in turn, A B A B: the figure is the median of the ratios frame by frame, in
seconds of the processor. Multiply-accumulates are counted beside it. Then a whole network of convolutions.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netwright.compress.delta_act.engine import DeltaEngine
from netwright.core.graph.trace import trace
from netwright.core.network import seeded
from netwright.core.weights.changes import layers as layers_of
from netwright.models import build
from result import write

SHARES = (0.01, 0.03, 0.05, 0.1, 0.2, 0.3)


def layers() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    with seeded(0):
        return {
            "conv 3x3, 64 to 64, 56x56": (nn.Conv2d(64, 64, 3, padding=1), (64, 56, 56)),
            "conv 3x3, 128 to 128, 28x28": (nn.Conv2d(128, 128, 3, padding=1), (128, 28, 28)),
            "conv 1x1, 256 to 256, 14x14": (nn.Conv2d(256, 256, 1), (256, 14, 14)),
            "linear, 1024 to 1024": (nn.Linear(1024, 1024), (1024,)),
        }


def stream(shape: tuple[int, ...], share: float, together: bool, count: int) -> Iterator[Tensor]:
    """Frames (1, ...) of which a share changes; together: at one place of the map, in every channel."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, *shape, generator=draw)
    for _ in range(count):
        if together and len(shape) == 3:
            side = max(1, round(math.sqrt(share * shape[1] * shape[2])))
            y, z = (int(torch.randint(0, n - side + 1, (1,), generator=draw)) for n in shape[1:])
            which = torch.zeros(x.shape, dtype=torch.bool)
            which[..., y : y + side, z : z + side] = True
        else:
            which = torch.rand(x.shape, generator=draw) < share
        x = torch.where(which, torch.randn(x.shape, generator=draw), x)
        yield x


def products(network: nn.Module, frames: list[Tensor]) -> float:
    """The share of the dense multiply-accumulates that changed inputs need, of the frames after the first."""
    graph = trace(network, frames[0])
    followed, needed, dense = layers_of(graph), 0.0, 0.0
    before: dict[Any, Tensor] = {}

    def rule(node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal needed, dense
        if node in followed:
            maps = followed[node].maps(args[0])[0]
            fan = followed[node].fan_out(*maps.shape[:2])
            if node in before:
                needed += ((maps != before[node]).sum(-1) * fan).sum().item()
                dense += fan.sum().item() * maps.shape[-1]
            before[node] = maps
        return node.target(*args, **kwargs)

    with torch.inference_mode():
        for frame in frames:
            graph.run((frame,), rule)
    return needed / dense


def timed(network: nn.Module, frames: list[Tensor]) -> dict[str, float]:
    """Deltas beside dense: seconds of the processor, products, and the largest difference."""
    engine, spent, off = DeltaEngine(network, frames[0], dense_above=1.0), [], 0.0
    with torch.inference_mode():
        for frame in frames:
            marks, made = [time.process_time()], []
            for run in (network, engine):
                made.append(run(frame))
                marks.append(time.process_time())
            spent.append(np.diff(marks))
            off = max(off, ((made[1] - made[0]).abs().max() / made[0].abs().max()).item())
    dense, deltas = np.array(spent[5:]).T  # the first ones compile and fill
    return {
        "milliseconds_dense": 1e3 * float(np.median(dense)), "milliseconds": 1e3 * float(np.median(deltas)),
        "faster": float(np.median(dense / deltas)), "products": products(network, frames[:10]), "error": off,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/delta_frames.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, (layer, shape) in layers().items():
        for together in (False, True) if len(shape) == 3 else (False,):
            for share in SHARES:
                frames = list(stream(shape, share, together, options.rounds))
                rows.append(
                    {"layer": name, "changing": share, "together": together, **timed(layer.eval(), frames)}
                )
    with seeded(0):
        network = build("cnn", (3, 112, 112), 10, widths=(32, 64, 128), norm=False).eval()
    whole = [
        {"changing": share, **timed(network, list(stream((3, 112, 112), share, True, options.rounds)))}
        for share in (0.001, 0.01, 0.05)
    ]
    result = {
        "what": "layers that follow what changes of their input, beside the dense ones, PyTorch, float32, one thread",
        "layers": rows,
        "network of 3x3 convolutions, 32-64-128, 112x112, without delta layers": whole,
    }
    write(options.out, result)


if __name__ == "__main__":
    main()
