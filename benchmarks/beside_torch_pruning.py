"""Prune and quantise beside Torch-Pruning and ONNX Runtime's own quantiser.

A ResNet on Fashion-MNIST (about 90 %), trained three times. The peer is torch_pruning's MagnitudePruner, which
removes a share of the multiply-accumulates, then onnxruntime.quantization.quantize_static on its export. Ours is
Prune, then StaticInt8, with the same importance (L1 magnitude, global) and the smallest share removed whose int8 file
is no slower than the peer's. Both fine-tune with the same loop, data, epochs and seed and calibrate on the same
examples. All files are timed in turn.

    python benchmarks/beside_torch_pruning.py        needs: pip install torch-pruning; Fashion-MNIST in NETWRIGHT_DATA
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from netwright.claims.beds.trained import testbed
from netwright.claims.statistics import difference, mean
from netwright.compress.parts.prune import Prune
from netwright.compress.static_int8 import StaticInt8
from netwright.core.budget import Budget
from netwright.core.errors import NetwrightError
from netwright.core.files.export import export
from netwright.core.fit import Fit
from netwright.core.measure.cost import cost, latency
from netwright.core.measure.latency import onnx_session
from netwright.core.network import clone
from netwright.core.split import take
from netwright.core.task import Task
from result import write

RATIO, EPOCHS, LR, CALIBRATION = 0.7, 3.0, 1e-3, 256
RATIOS = [0.6 + 0.01 * i for i in range(16)]  # tried for ours, untuned, until one is as fast as the peer
PEER = ("torch-pruning, float", "torch-pruning + onnxruntime, int8")
OURS = ("netwright, float", "netwright, int8")
OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "torch_pruning.json"


def ours(network: nn.Module, task: Task, seed: int, ratio: float, epochs: float = EPOCHS) -> nn.Module:
    method = Prune(importance="magnitude", scope="global", ratio=ratio, epochs=epochs, lr=LR, seed=seed)
    return method(network, task, Budget())


def as_fast(network: nn.Module, task: Task, seed: int, folder: Path, rival: Path) -> float:
    """The smallest ratio at which our int8 file takes no longer than the rival's; latency needs no fine-tuning."""
    files: dict[float, Path] = {}
    seen = set()
    for ratio in RATIOS:
        small = ours(network, task, seed, ratio, epochs=0)
        shapes = tuple(p.shape for p in small.parameters())
        if shapes not in seen:
            seen.add(shapes)
            files[ratio] = folder / f"untuned-{ratio:.2f}.onnx"
            export(int8(small, task, seed), task.example(2), files[ratio])
    timed = latency([rival, *files.values()], task.example(2), "onnx", rounds=150, seconds=60)
    return next(
        (ratio for ratio, share in zip(files, timed.ratio[1:], strict=True) if share <= 1), RATIOS[-1]
    )


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
    return StaticInt8(examples=CALIBRATION, seed=seed)(network, task, Budget())


def measure(folder: Path, seed: int) -> list[dict[str, Any]]:
    network, task = testbed("fashion-resnet-wide", seed)
    example = task.example(2)
    files = {name: folder / f"{i}.onnx" for i, name in enumerate(("original", *PEER, *OURS))}
    export(network, example, files["original"])
    theirs = peer(network, task, seed)
    export(theirs, example, files[PEER[0]])
    ort_int8(files[PEER[0]], files[PEER[1]], task, seed)
    ratio = as_fast(network, task, seed, folder, files[PEER[1]])
    mine = ours(network, task, seed, ratio)
    export(mine, example, files[OURS[0]])
    export(int8(mine, task, seed), example, files[OURS[1]])
    timed = latency(list(files.values()), example, "onnx", rounds=200, seconds=30)
    macs = dict(
        zip(files, [cost(n, (example[0],)).macs for n in (network, theirs, theirs, mine, mine)], strict=True)
    )
    return [
        {
            "seed": seed, "arm": name, "accuracy": accuracy(path, task), "ms": timed.median_ms[i],
            "faster": 1 / timed.ratio[i], "bytes": path.stat().st_size, "macs": macs[name],
        }
        for i, (name, path) in enumerate(files.items())
    ]  # fmt: skip


def main() -> int:
    rows: list[dict[str, Any]] = []
    try:
        for seed in (0, 1, 2):
            with tempfile.TemporaryDirectory() as folder:
                rows += measure(Path(folder), seed)
            print(*rows[-5:], sep="\n", flush=True)
    except (ModuleNotFoundError, NetwrightError) as missing:
        print(f"skipped: {missing}")
        return 0
    found = {
        "setting": f"{EPOCHS:g} epochs of fine-tuning (AdamW {LR:g}, cosine), {CALIBRATION} examples for calibration; "
        f"the peer removes {RATIO:.0%} of the multiply-accumulates, ours what makes its int8 file as fast",
        "int8 accuracy, ours minus the peer's": difference(rows, OURS[1], PEER[1], "accuracy"),
        "int8 time, ours over the peer's": mean(rows, OURS[1], "ms") / mean(rows, PEER[1], "ms"),
        "rows": rows,
    }
    write(OUT, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
