"""What a study adds to the trials themselves: starting a worker, handing it network and task, storing the network
that comes back, writing the row.

    python benchmarks/study_overhead.py [--trials 3] [--seconds 20]

A trial sleeps, so that nothing but the study is at work, and gives a network of the size of a small ResNet back.
Overhead is wall-clock time around the study over the seconds inside the trial functions. Writes
docs/benchmarks/study_overhead.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from netwright.claims.record import machine, revision
from netwright.core.files.checkpoint import atomic
from netwright.core.study.study import Outcome, Study, Trial
from netwright.core.task import Task
from netwright.models import build

RESULT = Path(__file__).parent.parent / "docs" / "benchmarks" / "study_overhead.json"


def trial_function(trial: Trial, network: torch.nn.Module, task: Task) -> Outcome:
    network(task.example(8)[0])
    time.sleep(trial.settings["seconds"])
    return Outcome({"accuracy": 0.5}, network)


def measure(folder: str, count: int, seconds: float) -> dict:
    images = torch.randint(0, 256, (60_000, 1, 28, 28), dtype=torch.uint8)  # as large as Fashion-MNIST
    task = Task.from_arrays(images.float(), torch.arange(60_000) % 10)
    network = build("resnet", (1, 28, 28), 10)
    study = Study(Path(folder) / "study.db", {"network": "resnet", "task": "random"})
    trials = [Trial("sleep", {"seconds": seconds, "i": i}) for i in range(count)]
    ends = [time.monotonic()]
    rows = study.run(
        trials, trial_function, network, task,
        progress=lambda label, news: ends.append(time.monotonic()) if isinstance(news, dict) else None,
    )  # fmt: skip
    wall, inside = time.monotonic() - ends[0], sum(row["seconds"] for row in rows)
    each = [end - start - row["seconds"] for start, end, row in zip(ends, ends[1:], rows, strict=False)]
    return {
        "trials": count,
        "seconds_inside_trials": inside,
        "seconds_around": wall - inside,
        "overhead": (wall - inside) / inside,
        "first_trial_adds_s": each[0],
        "later_trials_add_s": statistics.median(each[1:]),
        "network_parameters": sum(p.numel() for p in network.parameters()),
        "task_bytes": sum(t.nbytes for s in (task.train, task.val, task.test) for t in s.inputs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(folder, options.trials, options.seconds)
    result |= {"machine": machine(), "revision": revision()}
    with atomic(RESULT) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(
        f"{options.trials} trials of {options.seconds:g} s: overhead {100 * result['overhead']:.2f} % "
        f"(the first trial {result['first_trial_adds_s']:.2f} s, with the fork server's start and the hand-over of "
        f"{result['task_bytes'] / 1e6:.0f} MB; each later one {result['later_trials_add_s']:.2f} s)"
    )


if __name__ == "__main__":
    main()
