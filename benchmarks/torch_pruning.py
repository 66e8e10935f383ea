"""Prune and quantise beside Torch-Pruning and ONNX Runtime's own quantiser.

One ResNet on Fashion-MNIST (over 90 %), three seeds. Both sides remove the same share of multiply-accumulates by the
same importance (L1 magnitude, global), fine-tune with the same loop, data, epochs and seed, and end in int8 with the
same calibration examples. Ours: Prune, then StaticInt8. Peer: torch_pruning's MagnitudePruner, then
onnxruntime.quantization.quantize_static on its export. All files are timed in turn.

    python benchmarks/torch_pruning.py        needs: pip install torch-pruning; Fashion-MNIST in NETWRIGHT_DATA
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from netwright.claims.record import machine
from netwright.claims.testbeds import testbed
from netwright.compress.prune import Prune
from netwright.core.budget import Budget
from netwright.core.checkpoint import atomic
from netwright.core.cost import cost, latency
from netwright.core.errors import NetwrightError
from netwright.core.export import export
from netwright.core.fit import Fit
from netwright.core.latency import onnx_session
from netwright.core.network import clone
from netwright.core.split import take
from netwright.core.task import Task

RATIO, EPOCHS, LR, CALIBRATION = 0.7, 1.0, 1e-3, 256
OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "torch_pruning.json"


def ours(network: nn.Module, task: Task, seed: int) -> nn.Module:
    method = Prune(importance="magnitude", scope="global", ratio=RATIO, epochs=EPOCHS, lr=LR, seed=seed)
    return method(network, task, Budget())


def peer(network: nn.Module, task: Task, seed: int) -> nn.Module:
    """Torch-Pruning: one-shot, global, L1 magnitude; the channel ratio that removes the same share of MACs."""
    import torch_pruning as tp

    example = task.example(1)[0]
    whole = cost(network, (example,)).macs
    low, high = 0.05, 0.95
    for _ in range(8):
        middle = (low + high) / 2
        found = _pruned(tp, network, example, task.outputs, middle)
        low, high = (middle, high) if cost(found, (example,)).macs > (1 - RATIO) * whole else (low, middle)
    network = _pruned(tp, network, example, task.outputs, high)
    Fit(epochs=EPOCHS, lr=LR, seed=seed)(network, task)
    return network


def _pruned(tp: Any, network: nn.Module, example: torch.Tensor, outputs: int, ratio: float) -> nn.Module:
    network = clone(network).eval()
    heads = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == outputs]
    pruner = tp.pruner.MagnitudePruner(
        network, example, importance=tp.importance.MagnitudeImportance(p=1), global_pruning=True, pruning_ratio=ratio,
        max_pruning_ratio=0.9, ignored_layers=heads, round_to=8,
    )  # fmt: skip
    pruner.step()
    return network


def ort_int8(source: Path, target: Path, task: Task, seed: int) -> None:
    """onnxruntime.quantization.quantize_static, per channel, QDQ, after its own preprocessing."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            split = take(task.train, CALIBRATION, seed)
            self.batches = ({"input": x.numpy().astype(np.float32)} for x, _ in split.batches(32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    prepared = source.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    quantize_static(
        str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def accuracy(path: Path, task: Task) -> float:
    session = onnx_session(path, threads=2)
    hits = sum(
        int((session.run(None, {"input": x.numpy()})[0].argmax(1) == y.numpy()).sum())
        for x, y in task.test.batches(500)
    )
    return hits / len(task.test)


def int8(network: nn.Module, task: Task, seed: int) -> nn.Module:
    from netwright.core import catalogue

    return catalogue.method("static-int8").build()(network, task, Budget())


def measure(folder: Path, seed: int) -> list[dict[str, Any]]:
    network, task = testbed("fashion-resnet-wide", 0)
    files = {"original": folder / "original.onnx"}
    example = task.example(2)
    export(network, example, files["original"])
    pruned = {"netwright": ours(network, task, seed), "torch-pruning": peer(network, task, seed)}
    for name, small in pruned.items():
        files[f"{name}, float"] = folder / f"{name}.onnx"
        export(small, example, files[f"{name}, float"])
    files["netwright, int8"] = folder / "netwright-int8.onnx"
    export(int8(pruned["netwright"], task, seed), example, files["netwright, int8"])
    files["torch-pruning + onnxruntime, int8"] = folder / "peer-int8.onnx"
    ort_int8(files["torch-pruning, float"], files["torch-pruning + onnxruntime, int8"], task, seed)
    timed = latency(list(files.values()), example, "onnx", rounds=150, seconds=30)
    macs = {f"{name}, float": cost(small, example).macs for name, small in pruned.items()}
    return [
        {
            "seed": seed, "network": name, "accuracy": accuracy(path, task), "ms": timed.median_ms[i],
            "faster": 1 / timed.ratio[i], "bytes": path.stat().st_size, "macs": macs.get(name),
        }
        for i, (name, path) in enumerate(files.items())
    ]  # fmt: skip


def main() -> int:
    try:
        rows = []
        for seed in (0, 1, 2):
            with tempfile.TemporaryDirectory() as folder:
                rows += measure(Path(folder), seed)
            print(*rows[-5:], sep="\n", flush=True)
    except (ModuleNotFoundError, NetwrightError) as missing:
        print(f"skipped: {missing}")
        return 0
    setting = f"{RATIO:.0%} of the MACs removed, {EPOCHS:g} epoch of fine-tuning, one network, three seeds"
    with atomic(OUT) as path:
        path.write_text(json.dumps({"setting": setting, "machine": machine(), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
