"""One token through a gated feed-forward with part of its channels switched off, beside the dense one; one thread.

    python benchmarks/chess_decode.py [--rounds 60] [--out docs/benchmarks/chess_decode.json]

Random weights; thresholds from the method's own calibration; dense and sparse in turn, A B A B: the figure is the
median of the ratios round by round, in seconds of the processor and by the clock. Then a whole decoder, a token after
its cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netwright.claims.compress.chess import decoded, processor_seconds
from netwright.compress.chess import Chess
from netwright.core.budget import Budget
from netwright.core.measure.latency import latency
from netwright.core.network import seeded
from netwright.core.split import ArraySplit
from netwright.core.task import Task
from netwright.models import build
from result import write

SIZES = ((1024, 2816), (2048, 5632))
SHARES = (0.0, 0.3, 0.5, 0.7)  # with nothing off, what the kernels gain or lose by themselves
CACHE = 64  # tokens before the one that is timed


class Step(nn.Module):
    """One more token after a cache, as a network of one input."""

    def __init__(self, network: nn.Module, before: Tensor) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            _, self.cache = network.step(before)

    def forward(self, token: Tensor) -> Tensor:
        return self.network.step(token, self.cache)[0]


def decoder(rounds: int, width: int = 1024, depth: int = 4) -> list[dict[str, Any]]:
    """A whole step of a decoder with random weights, feed-forwards alone and with attention."""
    with seeded(0):
        network = build(
            "causal-transformer", (CACHE,), 256, width=width, depth=depth, heads=16, hidden=2816
        ).eval()
        tokens = torch.randint(256, (16, CACHE + 1))
    part = ArraySplit((tokens[:, :-1],), tokens[:, 1:])
    task = Task("noise", "classification", part, part, part, 256, meaning="tokens")
    arms = {"feed-forwards": Chess(), "feed-forwards and attention": Chess(attention=True)}
    made = [Step(method(network, task, Budget()), tokens[:1, :-1]) for method in arms.values()]
    steps = [Step(network, tokens[:1, :-1]), *made]
    found = latency(steps, (tokens[:1, -1:],), "torch", rounds=rounds)
    spent = processor_seconds(steps, tokens[:1, -1:], rounds)
    return [
        {
            "sparse": name, "width": width, "blocks": depth, "milliseconds_dense": 1e3 * float(np.median(spent[:, 0])),
            "milliseconds": 1e3 * float(np.median(spent[:, i])),
            "faster": float(np.median(spent[:, 0] / spent[:, i])), "faster_clock": found.faster[i],
        }
        for i, name in enumerate(arms, 1)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/chess_decode.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "what": "one token through a SwiGLU with channels switched off, beside the dense one, PyTorch, one thread",
        "feed_forward": [
            {"off": share, **decoded(width, hidden, share, 0, options.rounds)}
            for width, hidden in SIZES
            for share in SHARES
        ],
        "decoder, half off": decoder(options.rounds),
    }
    write(options.out, result)


if __name__ == "__main__":
    main()
