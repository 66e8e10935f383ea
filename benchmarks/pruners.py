"""Structured pruning beside Torch-Pruning, and int8 beside ONNX Runtime's static quantiser, on one converged network.

Three ResNets on Fashion-MNIST (93 %). Half and 70 % of the multiply-accumulates go at once, globally, by the norm of
the filters (L1), by the norm of the whole group, or by Taylor's score on the same 1,024 examples; then one epoch on the
same 10,000 images with the same loop and seed. Torch-Pruning's channel ratio is searched until it removes as much;
only its last call is timed. pruning: processor seconds from the network to the smaller one, scores included, without
fine-tuning. kernels: operators of the graph that ONNX Runtime makes of the int8 file.

    python benchmarks/pruners.py [--out docs/benchmarks/pruners.json]     data in NETWRIGHT_DATA
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from beside_torch_pruning import accuracy as accuracy_of_file
from beside_torch_pruning import int8, ort_int8
from netwright.claims.beds.trained import testbed
from netwright.claims.statistics import differences, mean
from netwright.compress.parts.prune import Prune
from netwright.core.budget import Budget
from netwright.core.files.export import export
from netwright.core.fit import Fit
from netwright.core.measure.cost import cost
from netwright.core.metrics import evaluate
from netwright.core.network import clone
from netwright.core.split import take
from netwright.core.task import Task
from result import write

RATIOS, SEEDS, IMAGES, SCORED = (0.5, 0.7), (0, 1, 2), 10_000, 1024
OURS = {"L1": "filters", "group norm": "magnitude", "Taylor": "taylor"}


def ours(score: str, ratio: float, network: nn.Module, task: Task, seed: int) -> nn.Module:
    method = Prune(OURS[score], ratio=ratio, samples=SCORED, round_to=1, epochs=0, seed=seed)  # type: ignore[arg-type]
    return method(network, task, Budget())


def theirs(score: str, channels: float, network: nn.Module, task: Task, seed: int) -> nn.Module:
    small = clone(network).eval()
    if score == "Taylor":
        small.zero_grad()
        for x, y in take(task.train, SCORED, seed).batches(128):
            F.cross_entropy(small(x), y).backward()
    importance = {
        "L1": tp.importance.MagnitudeImportance(p=1),
        "group norm": tp.importance.GroupMagnitudeImportance(p=2),
        "Taylor": tp.importance.GroupTaylorImportance(),
    }[score]
    heads = [m for m in small.modules() if isinstance(m, nn.Linear)]
    tp.pruner.BasePruner(
        small, task.example(1)[0], importance, global_pruning=True, pruning_ratio=channels, max_pruning_ratio=0.9,
        ignored_layers=heads,
    ).step()  # fmt: skip
    small.zero_grad()
    return small


def channels_for(score: str, ratio: float, network: nn.Module, task: Task, seed: int) -> float:
    """The share of channels with which Torch-Pruning removes this share of the multiply-accumulates."""
    example = task.example(1)
    whole, low, high = cost(network, example).macs, 0.05, 0.95
    for _ in range(9):
        middle = (low + high) / 2
        left = cost(theirs(score, middle, network, task, seed), example).macs
        low, high = (middle, high) if left > (1 - ratio) * whole else (low, middle)
    return high


TOOLS = {"torch-pruning": theirs, "netwright": ours}


def pruned(tool: str, score: str, amount: float, network: nn.Module, task: Task, seed: int) -> dict[str, Any]:
    begun = time.process_time()
    small = TOOLS[tool](score, amount, network, task, seed)
    seconds = time.process_time() - begun
    Fit(epochs=1, lr=1e-3, seed=seed)(small, replace(task, train=take(task.train, IMAGES, seed)))
    share = cost(small, task.example(1)).macs / cost(network, task.example(1)).macs
    return {
        "arm": tool, "seed": seed, "score": score, "accuracy": evaluate(small, task, "test")["accuracy"],
        "macs_kept": share, "pruning_s": seconds,
    }  # fmt: skip


def quantised(network: nn.Module, task: Task, seed: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {tool: Path(folder) / f"{tool}.onnx" for tool in ("float", "onnxruntime", "netwright")}
        export(network, task.example(2), files["float"])
        ort_int8(files["float"], files["onnxruntime"], task, seed)
        export(int8(network, task, seed), task.example(2), files["netwright"])
        for tool, path in files.items():
            rows.append(
                {"arm": tool, "seed": seed, "accuracy": accuracy_of_file(path, task), **kernels(path)}
            )
    return rows


def kernels(path: Path) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path.with_suffix(".run")), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(path.with_suffix(".run")).graph.node)
    return {"kernels": dict(sorted(found.items()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/pruners.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    whole: list[dict[str, Any]] = []
    for seed in SEEDS:
        network, task = testbed("fashion", seed)
        whole += quantised(network, task, seed)
        for score in OURS:
            for ratio in RATIOS:
                amounts = {
                    "torch-pruning": channels_for(score, ratio, network, task, seed), "netwright": ratio,
                }  # fmt: skip
                for tool, amount in amounts.items():
                    row = pruned(tool, score, amount, network, task, seed)
                    rows.append({**row, "removed": ratio})
                    print(rows[-1], flush=True)
    compared = {}
    for score in OURS:
        for ratio in RATIOS:
            cell = [row for row in rows if (row["score"], row["removed"]) == (score, ratio)]
            compared[f"{score}, {ratio:.0%} removed"] = {
                **differences(cell, "netwright", ("torch-pruning",), ("accuracy",)),
                "pruning, seconds over the peer's": mean(cell, "netwright", "pruning_s")
                / mean(cell, "torch-pruning", "pruning_s"),
            }
    write(
        options.out,
        {
            "setting": " ".join(__doc__.partition("\n\n")[2].partition("\n\n")[0].split()),
            "pruning": compared,
            "int8": differences(whole, "netwright", ("onnxruntime", "float"), ("accuracy",)),
            "rows": rows,
            "int8 rows": whole,
        },
    )


if __name__ == "__main__":
    main()
