"""Channel-wise thresholds against one threshold per layer, and what a token costs then, measured here."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.claims.beds.trained import convergence, testbed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, estimate, mean, told
from netwright.compress.chess import Chess, realised
from netwright.compress.chess.layers import Gate
from netwright.core.budget import Budget
from netwright.core.measure.latency import latency
from netwright.core.network import clone, seeded
from netwright.core.split import Split, take
from netwright.core.task import Task
from netwright.models.causal_transformer import SwiGLU

SPARSITIES = (0.3, 0.5, 0.7)
NETWORKS = 3  # trained ones; a seed takes one of them in turn, and calibration data of its own
WIDTH, HIDDEN = 1024, 2816
CALIBRATION, TEXT = 256, 256  # windows of 128 bytes

LOSS = tuple(Part(f"bits: chess {k} less cats {k}", "below") for k in SPARSITIES)
FASTER = "times faster at half of the channels"
SPEED = (Part(FASTER, "at least", 1.27),)
CLAIM = Claim(
    slug="chess",
    seeds=5,
    paper="less loss than CATS on eight tasks at half of the channels, generation up to 1.27 times faster (Llama-3-8B)",
    setting=(
        "language model of four blocks, width 128, SwiGLU of 384, trained on the Python library's sources byte by byte "
        "(the bed 'language', three networks); thresholds from 256 windows of training text per seed; bits per byte on "
        "256 windows of files that training did not see; speed: one token through a SwiGLU of 1024 and 2816 with "
        "random weights against the dense one, in turn, PyTorch, one thread, in seconds of the processor"
    ),
    rule=Rule(
        holds=(*LOSS, *SPEED),
        mixed=(LOSS, SPEED),
        bed=(
            Part("bits per byte, dense", "at most", 2.5),
            Part("bits: random 0.5 less chess 0.5", "above"),
            *(Part(f"off: chess {k} less cats {k}", "within", 0.01) for k in SPARSITIES),
        ),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows = []
    for seed in scale.seeds:
        network, task = testbed("language", seed % NETWORKS)
        text = take(task.test, TEXT, 0)
        dense = bits_per_byte(network, text)
        accuracy = convergence("language", seed % NETWORKS).accuracy
        rows.append({"arm": "dense", "seed": seed, "bits": dense, "accuracy": accuracy})
        for name, made in arms(network, task, seed).items():
            shares = realised(made, take(text, TEXT // 4))
            off = sum(shares.values()) / len(shares)
            rows.append({"arm": name, "seed": seed, "bits": bits_per_byte(made, text), "off": off})
        rows.append({"arm": "one token", "seed": seed, **decoded(WIDTH, HIDDEN, 0.5, seed)})
    return rows


def arms(network: nn.Module, task: Task, seed: int) -> dict[str, nn.Module]:
    """By name with the share that is to be switched off; all of them see the same calibration data."""
    made: dict[str, nn.Module] = {}
    for k in SPARSITIES:
        settings: dict[str, Any] = {"sparsity": k, "examples": CALIBRATION, "seed": seed}
        made[f"chess {k}"] = Chess(**settings)(network, task, Budget())
        made[f"cats {k}"] = Chess(**settings, thresholds="layer")(network, task, Budget())
        made[f"random {k}"] = at_random(made[f"chess {k}"], k, seed)
    middle: dict[str, Any] = {"sparsity": 0.5, "examples": CALIBRATION, "seed": seed}
    made["chess+ 0.5"] = Chess(**middle, attention=True)(network, task, Budget())
    made["chess as released 0.5"] = Chess(**middle, as_released=True)(network, task, Budget())
    return made


def at_random(network: nn.Module, share: float, seed: int) -> nn.Module:
    """The same network with a random share of each feed-forward's channels off, whatever the token."""
    made, draw = clone(network), torch.Generator().manual_seed(seed)
    for layer in made.modules():
        if isinstance(layer, Gate):
            order = torch.randperm(len(layer.threshold), generator=draw)
            layer.threshold.zero_()
            layer.threshold[order[: round(share * len(order))]] = torch.inf
    return made


@torch.no_grad()
def bits_per_byte(network: nn.Module, text: Split) -> float:
    total, count = 0.0, 0
    for inputs, targets in text.batches(32):
        loss = F.cross_entropy(network(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
        total, count = total + loss.item(), count + targets.numel()
    return total / count / math.log(2)


def decoded(width: int, hidden: int, share: float, seed: int, rounds: int = 60) -> dict[str, Any]:
    """How many times faster one token passes a feed-forward of random weights when this share is switched off.

    faster: median of the ratios round by round, in seconds of the processor, which other work on the machine disturbs
    less; faster_clock: by the clock, with the 10 % and 90 % quantiles. error: the largest difference of the kernels'
    output from the masked form's, over the largest output.
    """
    with seeded(seed):
        dense = SwiGLU(width, hidden).eval()
        x, y = torch.randn(64, width), torch.randn(64, width)
    task = Task.from_arrays(x, y, val=(x, y), test=(x, y), name="noise", meaning="other")
    made = Chess(sparsity=share, seed=seed)(dense, task, Budget())
    one = x[:1]
    found = latency([dense, made], (one,), "torch", rounds=rounds)
    spent = processor_seconds([dense, made], one, rounds)
    low, high = found.spread[1]
    with torch.no_grad():
        active = made.gate.active(one).double().mean().item()
        masked, skipped = made(torch.cat([one, one]))[:1], made(one)
    return {
        "width": width, "hidden": hidden, "active": active,
        "milliseconds_dense": 1e3 * float(np.median(spent[:, 0])), "milliseconds": 1e3 * float(np.median(spent[:, 1])),
        "faster": float(np.median(spent[:, 0] / spent[:, 1])),
        "faster_clock": found.faster[1], "faster_clock_low": 1 / high, "faster_clock_high": 1 / low,
        "error": relative(masked, skipped),
    }  # fmt: skip


def processor_seconds(networks: Sequence[nn.Module], x: Tensor, rounds: int) -> np.ndarray:
    """Of each network's pass, in turn, one thread: (rounds, networks)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    with torch.inference_mode():
        for _ in range(rounds):
            marks = [time.process_time()]
            for network in networks:
                network(x)
                marks.append(time.process_time())
            rows.append(np.diff(marks))
    torch.set_num_threads(before)
    return np.array(rows)


def relative(expected: Tensor, got: Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures: dict[str, Any] = {}
    for k in SPARSITIES:
        figures |= differences(rows, f"chess {k}", ("dense", f"cats {k}"), ("bits",))
    figures |= differences(rows, "chess+ 0.5", ("chess 0.5",), ("bits",))
    figures |= differences(rows, "chess as released 0.5", ("chess 0.5",), ("bits", "off"))
    single = [row for row in rows if row["arm"] == "one token"]
    figures[FASTER] = estimate([row["faster"] for row in single])
    figures["kernels' largest error"] = max(row["error"] for row in single)
    bed: dict[str, Any] = {
        "bits per byte, dense": mean(rows, "dense", "bits"),
        "accuracy of next bytes, dense": mean(rows, "dense", "accuracy"),
        "share of channels active, one token": mean(rows, "one token", "active"),
        **differences(rows, "random 0.5", ("chess 0.5",), ("bits",)),
    }
    for k in SPARSITIES:
        bed |= differences(rows, f"chess {k}", (f"cats {k}",), ("off",))
    gaps = ", ".join(f"{told(figures[f'bits: chess {k} less cats {k}'], 1, 4)} at {k}" for k in SPARSITIES)
    lost = ", ".join(f"{figures[f'bits: chess {k} less dense']['mean']:+.3f}" for k in SPARSITIES)
    return Measured(
        summary=(
            f"bits per byte against CATS: {gaps}; lost against dense ({bed['bits per byte, dense']:.3f}): {lost}; "
            f"one token {figures[FASTER]['mean']:.2f} times faster at half of the channels of {WIDTH} to {HIDDEN}"
        ),
        figures=figures,
        bed=bed,
        notes=(
            "A single token's feed-forward costs what it takes to read its weights: the gate is read whole, so that "
            "half of the channels can give 1.5 times at most. Batches, prompts and exported files gain nothing."
        ),
    )
