"""Networks as their users get them: written as ONNX, scored and timed from the files, in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from netwright.core.files.export import export
from netwright.core.measure.latency import latency, onnx_feed, onnx_session
from netwright.core.metrics import score
from netwright.core.network import as_tuple
from netwright.core.quiet import quiet
from netwright.core.split import Split, take
from netwright.core.task import Task

Peer = Callable[[Path, Path, Task], None]


def deployed(
    networks: Mapping[str, nn.Module], task: Task, peers: Mapping[str, Peer] = {}, seconds: float = 4.0
) -> list[dict[str, Any]]:
    """One row per arm: test accuracy in ONNX Runtime, bytes of the file, time over the first network's time.

    peers: name -> (float file, file to write, task), tools that work on the first network's file.
    Times are of batch 1 on one thread; `time_low` and `time_high` are the 95 % interval of the median ratio.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths: dict[str, Path] = {}
        for i, (arm, network) in enumerate(networks.items()):
            paths[arm] = export(network, task.example(2), folder / f"{i}.onnx").path
        first = next(iter(paths.values()))
        for arm, make in peers.items():
            paths[arm] = folder / f"{arm.replace(' ', '-')}.onnx"
            with quiet():
                make(first, paths[arm], task)
        timed = latency(list(paths.values()), task.example(), rounds=200, seconds=seconds)
        return [
            {
                "arm": arm,
                "accuracy": accuracy(path, task.test, task.kind),
                "bytes": path.stat().st_size,
                "ms": timed.median_ms[i],
                "time": timed.ratio[i],
                "time_low": timed.interval[i][0],
                "time_high": timed.interval[i][1],
            }
            for i, (arm, path) in enumerate(paths.items())
        ]


def accuracy(path: Path, split: Split, kind: str) -> float:
    """Accuracy of an ONNX file, run at batch 100."""
    session = onnx_session(path)
    outputs, targets = [], []
    for x, y in split.batches(100):
        outputs.append(torch.as_tensor(session.run(None, onnx_feed(session, as_tuple(x)))[0]))
        targets.append(y)
    return score(torch.cat(outputs), torch.cat(targets), kind)["accuracy"]


def onnx_runtime_static(source: Path, target: Path, task: Task) -> None:
    """ONNX Runtime's own static quantisation: its preparation, QDQ, per channel, 256 calibration examples."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = ({"input": x.numpy()} for x, _ in take(task.train, 256, 0).batches(64))

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    ready = target.with_suffix(".ready.onnx")
    quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def onnx_runtime_dynamic(source: Path, target: Path, task: Task) -> None:
    """ONNX Runtime's own dynamic quantisation, per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    bare = onnx.load(source)
    del bare.graph.value_info[:]  # the tool turns weights round and then trips over their old shapes
    ready = target.with_suffix(".ready.onnx")
    onnx.save(bare, ready)
    quantize_dynamic(str(ready), str(target), per_channel=True, weight_type=QuantType.QInt8)
