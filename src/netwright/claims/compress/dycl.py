"""DyCL's claim, measured here: no wrong decision, and faster than the network itself, on three kinds of branches."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netwright.claims.beds.branching import NETWORKS, branching
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import column, estimate, mean
from netwright.compress.dycl import compiled, equivalence
from netwright.compress.dycl.equivalence import compared
from netwright.core.errors import NotApplicable
from netwright.core.files.staged.staged import session_part
from netwright.core.graph.trace import trace
from netwright.core.measure.latency import latency
from netwright.core.network import as_tuple
from netwright.core.quiet import silent
from netwright.core.task import Task

INPUTS = 1000
TIMED = 40
OFF = 1e-3  # an output that differs by more of its largest entry is another one

CLAIM = Claim(
    slug="dycl",
    paper=(
        "compiling one traced path gives wrong outputs for 83 to 100 % of inputs; compiled with its branches, 0 % on "
        "nine networks, 1.12 to 20.21 times faster"
    ),
    setting=(
        "Fashion-MNIST, networks trained on 2,000 images: three exits (stops where 0.7 sure), four residual blocks "
        "behind gates, and a recurrent decoder that writes the class's name; 1,000 test images one at a time; times "
        "of 40 of them in turn with the network itself in PyTorch, one thread; a wrong decision is another class or "
        "another text"
    ),
    rule=Rule(
        holds=tuple(
            part
            for name in NETWORKS
            for part in (
                Part(f"wrong decisions: {name}", "at most", 0.0),
                Part(f"times faster: {name}", "above", 1.0),
            )
        ),
        mixed=(tuple(Part(f"wrong decisions: {name}", "at most", 0.0) for name in NETWORKS),),
        bed=tuple(
            part
            for name in NETWORKS
            for part in (
                Part(f"share of other ways than the commonest: {name}", "at least", 0.05),
                Part(f"wrong outputs when one path is traced: {name}", "at least", 0.05),
            )
        ),
    ),
)


class Over(nn.Module):
    """A network over several inputs, one at a time: what is timed."""

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.network, self.inputs = network, list(inputs)

    def forward(self, _: Tensor) -> None:
        for x in self.inputs:
            self.network(x)


class Traced(nn.Module):
    """What torch's tracing exporter makes of a network and one input, in ONNX Runtime."""

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        super().__init__()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "traced.onnx"
            with silent(), torch.no_grad():
                torch.onnx.export(network, (example,), str(path), dynamo=False, opset_version=20)
            self.run = session_part(path.read_bytes(), 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.run([x.numpy()])[0])


def measure(scale: Scale) -> list[dict[str, Any]]:
    return [
        row for seed in scale.seeds for name in NETWORKS for row in _rows(name, *branching(name, seed), seed)
    ]


def _rows(name: str, network: nn.Module, task: Task, seed: int) -> list[dict[str, Any]]:
    given, targets = next(iter(task.test.batches(INPUTS)))
    inputs = list(as_tuple(given)[0].split(1))
    staged = compiled(network, (inputs[0],))
    found = equivalence(network, staged, inputs)
    traced = Traced(network, inputs[0])
    with torch.no_grad():
        outputs = [network(x) for x in inputs]
        off = [compared(output, traced(x)) for output, x in zip(outputs, inputs, strict=True)]
    ways = Counter(staged.way(x) for x in inputs)
    timed = latency(
        [Over(network, inputs[:TIMED]), Over(staged, inputs[:TIMED])],
        inputs[0],
        "torch",
        rounds=40,
        seconds=8,
    )
    try:
        with silent():
            trace(network, (inputs[0],))
        exports = 1.0
    except NotApplicable:
        exports = 0.0
    arm = lambda what: {"arm": f"{name}: {what}", "seed": seed}
    return [
        {
            **arm("dycl"),
            "wrong": found.eta, "delta": found.delta, "faster": timed.faster[1],
            "ms": timed.median_ms[1] / TIMED, "parts": len(staged.plan.parts), "decisions": staged.plan.decisions,
            "inputs": found.examples,
        },
        {
            **arm("network"),
            "ms": timed.median_ms[0] / TIMED, "right": _right(network, outputs, targets),
            "ways": len(ways), "other": 1 - ways.most_common(1)[0][1] / len(inputs),
        },
        {
            **arm("traced"),
            "wrong": sum(not same for *_, same in off) / len(off),
            "off": sum(not difference <= OFF * scale for difference, scale, _ in off) / len(off),
            "exports": exports,
        },
    ]  # fmt: skip


def _right(network: nn.Module, outputs: Sequence[Tensor], targets: Tensor) -> float:
    """Share of right answers: classes, or names spelled to the end."""
    spelled = getattr(network, "spelled", None)
    pairs = zip(outputs, targets.tolist(), strict=True)
    right = [out.tolist() == spelled[y] if spelled else int(out.argmax()) == y for out, y in pairs]
    return sum(right) / len(right)


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures: dict[str, Any] = {}
    bed: dict[str, Any] = {}
    told = []
    for name in NETWORKS:
        wrong = column(rows, f"{name}: dycl", "wrong")
        faster = estimate(list(column(rows, f"{name}: dycl", "faster").values()))
        figures[f"wrong decisions: {name}"] = max(wrong.values())
        figures[f"times faster: {name}"] = faster
        figures[f"log of the largest difference: {name}"] = max(
            column(rows, f"{name}: dycl", "delta").values()
        )
        figures[f"exported whole by torch.export: {name}"] = mean(rows, f"{name}: traced", "exports")
        bed[f"share of other ways than the commonest: {name}"] = min(
            column(rows, f"{name}: network", "other").values()
        )
        bed[f"wrong outputs when one path is traced: {name}"] = mean(rows, f"{name}: traced", "off")
        figures[f"wrong decisions when one path is traced: {name}"] = mean(rows, f"{name}: traced", "wrong")
        bed[f"right answers: {name}"] = mean(rows, f"{name}: network", "right")
        traced = mean(rows, f"{name}: traced", "off")
        told.append(
            f"{name} {faster['mean']:.1f} times faster [{faster['low']:.1f}, {faster['high']:.1f}], "
            f"{100 * max(wrong.values()):.1f} % wrong (one path traced: "
            f"{100 * mean(rows, f'{name}: traced', 'wrong'):.0f} %, other outputs {100 * traced:.0f} %)"
        )
    return Measured(
        summary="; ".join(told),
        figures=figures,
        bed=bed,
        notes=(
            "Wrong counts decisions that differ from the network's own, the most of any seed. torch.compile, which "
            "leaves the branches to Python, was not measured."
        ),
    )
