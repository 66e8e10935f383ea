"""Measured latency: candidates timed in turn, A B A B, in one process, compared pair by pair.

Machines drift: two figures taken minutes apart do not compare. What compares is the ratio of two runs that
stand next to each other in time, and its spread over many such pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from netwright.core.budget import time_left
from netwright.core.errors import BadInput
from netwright.core.network import Inputs, as_tuple, call, device_of, evaluating, move
from netwright.core.plural import number_of

Backend = Literal["onnx", "torch"]

_BURST_SECONDS = 1e-3  # calls that are faster than this are timed several at a time
_LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Latency:
    """One entry per candidate, in the order given. Ratios are time over the first candidate's time.

    median_ms: median over the rounds. ratio: median of the ratios round by round (the first is 1).
    spread: 10 % and 90 % quantiles of those ratios. interval: 95 % bootstrap interval of their median.
    """

    median_ms: tuple[float, ...]
    ratio: tuple[float, ...]
    spread: tuple[tuple[float, float], ...]
    interval: tuple[tuple[float, float], ...]
    rounds: int

    @property
    def faster(self) -> tuple[float, ...]:
        """How many times faster than the first each candidate is."""
        return tuple(1 / r for r in self.ratio)


def latency(
    candidates: Sequence[nn.Module | str | Path],
    example: Inputs,
    backend: Backend = "onnx",
    *,
    batch: int = 1,
    threads: int = 1,
    rounds: int = 50,
    seconds: float = 10.0,
) -> Latency:
    """Time candidates in turn.

    candidates: ONNX files for backend 'onnx' (run by ONNX Runtime), modules for 'torch' (evaluation mode,
    inference mode). example: inputs (B, ...), repeated or cut to `batch` rows. A round times each candidate
    once (a burst of calls when one is very fast), after a warm-up. Ends after `rounds`, or after `seconds`
    but not before five rounds; after one, where the time set around it (core/budget.py) is over.
    """
    if not candidates:
        raise BadInput("there is nothing to time")
    inputs = tuple(_rows(t, batch) for t in as_tuple(example))
    with _threads(threads), ExitStack() as modes:
        if backend == "torch":
            for network in candidates:
                if isinstance(network, nn.Module):
                    modes.enter_context(evaluating(network))  # walking a network's modules is not its latency
            runs = [_module_run(c, inputs) for c in candidates]
        elif backend == "onnx":
            runs = [_onnx_run(c, inputs, threads) for c in candidates]
        else:
            raise BadInput(f"no backend named '{backend}'; use onnx or torch")
        times = _in_turn(runs, rounds, seconds)
    return _summary(times)


def _in_turn(runs: list[Callable[[], None]], rounds: int, seconds: float) -> np.ndarray:
    """Seconds per call (rounds, candidates)."""
    bursts = []
    for run in runs:
        run()
        if time_left() > 0:
            run()
        bursts.append(max(1, min(100, int(_BURST_SECONDS / max(_seconds(run, 1), 1e-7)))))
    times: list[list[float]] = []
    start = time.perf_counter()
    while len(times) < rounds:
        times.append([_seconds(run, burst) for run, burst in zip(runs, bursts, strict=True)])
        enough = len(times) >= _LEAST_ROUNDS and time.perf_counter() - start > seconds
        if enough or time_left() <= 0:
            break
    return np.asarray(times)


def _seconds(run: Callable[[], None], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def _summary(times: np.ndarray) -> Latency:
    ratios = times / times[:, :1]
    n = len(ratios)
    picks = np.random.default_rng(0).integers(0, n, (1000, n))
    medians = np.median(ratios[picks], axis=1)  # (draws, candidates)
    pairs = lambda low, high: tuple(zip(low.tolist(), high.tolist(), strict=True))
    return Latency(
        median_ms=tuple((1e3 * np.median(times, axis=0)).tolist()),
        ratio=tuple(np.median(ratios, axis=0).tolist()),
        spread=pairs(*np.quantile(ratios, [0.1, 0.9], axis=0)),
        interval=pairs(*np.quantile(medians, [0.025, 0.975], axis=0)),
        rounds=n,
    )


def _rows(tensor: Tensor, batch: int) -> Tensor:
    if batch < 1 or not len(tensor):
        raise BadInput(f"cannot time a batch of {batch} with an example of {len(tensor)} rows")
    repeats = -(-batch // len(tensor))
    return torch.cat([tensor.detach()] * repeats)[:batch].contiguous()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _module_run(network: Any, inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    if not isinstance(network, nn.Module):
        raise BadInput(f"backend 'torch' times modules, not {type(network).__name__}")
    device = device_of(network)
    placed = move(inputs, device)

    def run() -> None:
        with torch.inference_mode():
            call(network, placed)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def onnx_session(path: str | Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU with so many threads; a file that it refuses is a BadInput."""
    import onnxruntime as ort

    if not Path(path).is_file():
        raise BadInput(f"{path}: no such file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BadInput(f"{path}: ONNX Runtime cannot run it ({str(error).splitlines()[0]})") from error


def fixed_batch(path: str | Path) -> int | None:
    """The only batch size that an ONNX file takes; None where it takes any."""
    return _fixed(onnx_session(path))


def _fixed(session: Any) -> int | None:
    size = session.get_inputs()[0].shape[0]  # a name where it is free
    return size if isinstance(size, int) else None


def onnx_feed(session: Any, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    """Inputs by the session's names, in its types."""
    wanted = session.get_inputs()
    if len(wanted) != len(inputs):
        raise BadInput(
            f"the ONNX network takes {number_of(len(wanted), 'input')}, the example has {len(inputs)}"
        )
    return {
        w.name: tensor.cpu().numpy().astype(_NUMPY[w.type], copy=False)
        for w, tensor in zip(wanted, inputs, strict=True)
    }


_NUMPY = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(int32)": np.int32,
    "tensor(int64)": np.int64, "tensor(bool)": np.bool_,
}  # fmt: skip


def _onnx_run(path: Any, inputs: tuple[Tensor, ...], threads: int) -> Callable[[], None]:
    if isinstance(path, nn.Module):
        raise BadInput("backend 'onnx' times ONNX files; export the network first, or use backend 'torch'")
    session = onnx_session(path, threads)
    fixed, batch = _fixed(session), len(inputs[0])
    if fixed not in (None, batch):
        raise BadInput(
            f"{path} takes batches of {fixed} only, so it cannot be timed with {batch}; ask for a batch of {fixed}"
        )
    feed = onnx_feed(session, inputs)

    def run() -> None:
        session.run(None, feed)

    return run
