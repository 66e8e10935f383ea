"""Run a network's file without netwright, and score what it gives.

    python outsider.py FILE FEEDS.npz OUTPUTS.npz

In a process of its own: an .onnx file with onnxruntime alone, a .pt2 file with torch alone, code with torch and
safetensors. FEEDS.npz: its inputs in their order; OUTPUTS.npz gets all its outputs, '0', '1', ...
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 256


def onnx(path: str, feeds: list[np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    assert len(names) == len(feeds), f"{path} takes {names}"
    found = []
    for start in range(0, len(feeds[0]), BATCH):
        part = {n: x[start : start + BATCH] for n, x in zip(names, feeds, strict=True)}
        found.append([_array(out) for out in session.run(None, part)])
    assert "torch" not in sys.modules
    return [np.concatenate(outs) for outs in zip(*found, strict=True)]


def _array(out: Any) -> np.ndarray:
    """An output as an array; a list of {class: probability} by the classes' order."""
    if isinstance(out, np.ndarray):
        return out.astype(np.str_) if out.dtype.kind == "O" else out
    return np.array([[row[k] for k in sorted(row)] for row in out], np.float32)


def pt2(path: str, feeds: list[np.ndarray]) -> list[np.ndarray]:
    import torch

    torch.set_num_threads(1)
    network = torch.export.load(path).module()
    return _torch(network, feeds)


def code(source: str, state: str, feeds: list[np.ndarray]) -> list[np.ndarray]:
    import importlib.util

    from safetensors.torch import load_file

    file, _, function = source.rpartition(":")
    spec = importlib.util.spec_from_file_location("net", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = getattr(module, function)()
    network.load_state_dict(load_file(state))
    return _torch(network.eval(), feeds)


def _torch(network: Any, feeds: list[np.ndarray]) -> list[np.ndarray]:
    import torch

    found = []
    with torch.no_grad():
        for start in range(0, len(feeds[0]), BATCH):
            found.append(network(*(torch.from_numpy(x[start : start + BATCH].copy()) for x in feeds)).numpy())
    return [np.concatenate(found)]


def outputs(file: str, feeds: list[np.ndarray], state: str = "") -> list[np.ndarray]:
    """All outputs of a file, from a fresh process. RuntimeError with its last line where it cannot."""
    with tempfile.TemporaryDirectory() as scratch:
        given, got = Path(scratch) / "feeds.npz", Path(scratch) / "outputs.npz"
        np.savez(given, **{f"{i:02}": x for i, x in enumerate(feeds)})
        command = [
            sys.executable,
            "-W",
            "ignore",
            __file__,
            file,
            str(given),
            str(got),
            *([state] if state else []),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(
                f"{Path(file).name} does not open: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
            )
        with np.load(got) as held:
            return [held[k] for k in held.files]


def outputs_of_case(case: Any) -> tuple[np.ndarray, np.ndarray]:
    """The given network's scores on the fresh rows, and their targets."""
    with np.load(case.own) as held:
        feeds, y = [held[k] for k in held.files if k != "y"], held["y"]
    return outputs(case.model, feeds, case.state)[case.scores], y


def hits(scores: np.ndarray, y: np.ndarray, kind: str) -> np.ndarray:
    """Per row: 1 where the class is right, or the share of labels that are."""
    if kind == "multilabel":
        return ((scores > 0) == (y > 0)).mean(1)
    if y.dtype.kind == "U":
        y = np.unique(y, return_inverse=True)[1]
    return (scores.argmax(1) == y).astype(float)


def figure(scores: np.ndarray, y: np.ndarray, kind: str) -> float:
    """Accuracy (mean over rows and labels), or R2 (all outputs together, about each one's own mean)."""
    if kind != "regression":
        return float(hits(scores, y, kind).mean())
    y = y.astype(float)
    return float(1 - ((scores.reshape(y.shape) - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())


def main() -> None:
    file, given, got, *state = sys.argv[1:]
    with np.load(given) as held:
        feeds = [held[k] for k in sorted(held.files)]
    if file.endswith(".onnx"):
        found = onnx(file, feeds)
    else:
        found = pt2(file, feeds) if file.endswith(".pt2") else code(file, state[0], feeds)
    assert not any(name.partition(".")[0] == "netwright" for name in sys.modules)
    np.savez(got, **{str(i): out for i, out in enumerate(found)})


if __name__ == "__main__":
    main()
