"""Measure the files that `netwright improve` wrote again, from the files alone: python benchmarks/remeasure.py DIR

Accuracy of original.onnx and model.onnx on the test split and their latency (ONNX Runtime, timed in turn, with the
batch and the threads that result.json names) come from this script's own loops, not from the code that wrote
result.json. Exit code 0 when the improved file is as fast, small and accurate as was asked, 1 when not.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from netwright.data import task as open_task


def session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def accuracy(run: ort.InferenceSession, split) -> float:
    name, hits, count = run.get_inputs()[0].name, 0, 0
    for x, y in split.batches(256):
        logits = run.run(None, {name: x.numpy().astype(np.float32)})[0]
        hits += int((logits.argmax(1) == y.numpy()).sum())
        count += len(y)
    return hits / count


def milliseconds(runs: list[ort.InferenceSession], x: np.ndarray, rounds: int = 300) -> list[list[float]]:
    feeds = [{run.get_inputs()[0].name: x} for run in runs]
    times: list[list[float]] = [[] for _ in runs]
    for i in range(rounds + 20):
        for run, feed, kept in zip(runs, feeds, times, strict=True):
            start = time.perf_counter()
            run.run(None, feed)
            if i >= 20:
                kept.append(1e3 * (time.perf_counter() - start))
    return times


def main(folder: Path) -> int:
    result = json.loads((folder / "result.json").read_text())
    task = open_task(result["task"], seed=result["seed"], **result["task_options"]).raw()
    files = [folder / "original.onnx", folder / "model.onnx"]
    used = result.get("deployment", {"batch": 1, "threads": 1})
    runs = [session(path, used["threads"]) for path in files]
    scores = [accuracy(run, task.test) for run in runs]
    times = milliseconds(runs, next(iter(task.test.batches(used["batch"])))[0].numpy().astype(np.float32))
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    smaller = files[0].stat().st_size / files[1].stat().st_size
    drop = scores[0] - scores[1]
    threads = "one thread" if used["threads"] == 1 else f"{used['threads']} threads"
    print(f"ONNX Runtime, {threads}, batch {used['batch']}, in turn:")
    for path, score, kept in zip(files, scores, times, strict=True):
        print(
            f"{path.name:15} {100 * score:6.2f} %   {statistics.median(kept):.4f} ms   {path.stat().st_size:,} bytes"
        )
    print(
        f"re-measured: {ratio:.2f}x faster, {smaller:.2f}x smaller, {100 * drop:+.2f} points lost on {len(task.test)}"
    )
    before, after = result["before"], result["after"]
    print(
        f"result.json: {1 / after['onnx_ratio']:.2f}x faster, {before['bytes'] / after['bytes']:.2f}x smaller, "
        f"{100 * (before['accuracy'] - after['accuracy']):+.2f} points lost"
    )
    asked = result["asked"]
    met = (
        ratio >= (asked["faster"] or 0)
        and smaller >= (asked["smaller"] or 0)
        and drop <= (asked["max_drop"] or 1) + 1e-9
    )
    print("as asked" if met else "NOT as asked")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
