"""Does `--budget` hold? Wall-clock time of whole commands, with two busy loops beside them.

    python benchmarks/strangers/budgets.py [--cache DIR] [--only NAME ...] [--budgets 10s 30s 3m]
                                           [--commands improve compare verify] [--loops 2] [--fresh-start]

Each command on each of ten foreign networks, in a process of its own, from its start to its end; in time is within
1.25 times the budget plus 30 s. It must also give what it is for: an exit code of 0 or 1, and a result. A command is
ended at three times what it may take, plus a minute. Writes docs/benchmarks/strangers_budgets.json as rows come, with
the machine's load average at each, and goes on where it was stopped; the ten networks at all three budgets take some
two hours and a half. Two runs over different networks may go on at once: each is load for the other.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from case import Case
from command import netwright, of
from networks import arguments, cases
from record import Record

TEN = (
    "digits_mlp", "fashion_memorised", "fashion_separable", "mnist_densenet", "mnist_vit", "cifar_folder",
    "sst_text_cnn", "waves_lstm", "staff_sklearn", "overfit_values",
)  # fmt: skip
SECONDS = {"s": 1, "m": 60}
COMMANDS = {"improve": ["improve"], "compare": ["compare", "compress"], "verify": ["verify"]}


def seconds(text: str) -> float:
    return float(text[:-1]) * SECONDS[text[-1]]


def allowed(budget: float) -> float:
    return 1.25 * budget + 30


def busy(parent: int) -> None:
    while os.getppid() == parent:  # it does not outlive a script that was killed
        pass


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [
        multiprocessing.get_context("spawn").Process(target=busy, args=(os.getpid(),), daemon=True)
        for _ in range(count)
    ]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()


def measure(case: Case, command: str, budget: str, out: Path) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    most = allowed(seconds(budget))
    first, *rest = COMMANDS[command]
    said = netwright(first, *rest, *of(case), "--budget", budget, "--out", str(out), limit=3 * most + 60)
    row = {
        "seconds": round(said.seconds, 1),
        "allowed": most,
        "exit": said.code,
        "in_time": said.seconds <= most,
        "load": round(os.getloadavg()[0], 1),
    }
    # bounds cannot be had for every network, and a verifier that says so (code 2) has answered
    codes = (0, 1, 2) if command == "verify" else (0, 1)
    answered = said.code in codes and "Traceback" not in said.err
    return row | {"answered": answered} | ({} if answered else {"line": said.last[:300]})


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--budgets", nargs="+", default=["10s", "30s", "3m"])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--loops", type=int, default=2, help="busy loops beside the command")
    parser.add_argument("--fresh-start", action="store_true", help="forget what an earlier run wrote")
    options = parser.parse_args()
    record = Record("strangers_budgets", {}, options.fresh_start)
    with busy_loops(options.loops):
        for budget in options.budgets:
            for case in cases(options.only or list(TEN), options.cache):
                for command in options.commands:
                    out = options.cache / "out" / f"budget-{command}-{budget}-{case.name}"
                    row = record.row(
                        f"{command} {budget} {case.name}", lambda a=(case, command, budget, out): measure(*a)
                    )
                    state = (
                        "in time" if row["in_time"] else "TOO LATE" if row["exit"] is not None else "NO END"
                    )
                    print(
                        f"{command:8} {budget:>4} {case.name:18} {row['seconds']:6.0f} of {row['allowed']:3.0f} s  "
                        f"{state}  {'' if row['answered'] else 'no answer: ' + row['line']}", flush=True,
                    )  # fmt: skip
    late = [n for n, r in record.rows.items() if not r["in_time"]]
    silent = [n for n, r in record.rows.items() if not r["answered"]]
    worst = max(record.rows, key=lambda n: record.rows[n]["seconds"] / record.rows[n]["allowed"], default="")
    record.summary({"commands": len(record.rows), "late": late, "without_an_answer": silent, "worst": worst})
    print(
        f"{len(record.rows)} commands: {len(late)} too late, {len(silent)} without an answer; worst: {worst}"
    )
    return 1 if late or silent else 0


if __name__ == "__main__":
    raise SystemExit(main())
