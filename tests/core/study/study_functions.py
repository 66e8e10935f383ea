"""Trial functions for the tests of studies; as a program, a study that can be killed or interrupted.

Run as `python study_functions.py FOLDER COUNT SECONDS`: a study of COUNT trials of SECONDS each.
"""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from netwright.core import progress
from netwright.core.errors import NotApplicable
from netwright.core.study.study import Outcome, Study, Trial


def learn(trial, network, data):
    """An honest small trial: what it gives depends on the trial and on what is shared."""
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(trial.settings["factor"])
    progress.step(1, 2, "scaled")
    return Outcome({"mean": network(data).mean().item()}, network, {"note.txt": b"kept"}, note="scaled")


def do_well(trial):
    return Outcome({"x": 1.0})


def do_raise(trial):
    raise ValueError("first line\nsecond line")


def do_refuse(trial):
    raise NotApplicable("needs transformer blocks, this network has none")


def do_leave(trial):
    sys.exit(4)


def do_exit(trial):
    os._exit(3)


def do_segfault(trial):
    ctypes.string_at(0)


def do_hang(trial):
    time.sleep(1000)


def do_hang_in_c(trial):
    ctypes.PyDLL(None).sleep(1000)  # holds the interpreter: no Python thread runs any more


def do_allocate(trial):
    torch.empty(1 << 50)


def do_eat(trial):
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1000) * 10000))
        time.sleep(0.002)


def do_eat_in_child(trial):
    code = "import os, time\nx = bytearray(os.urandom(1000) * 1000000)\ntime.sleep(1000)"
    subprocess.run([sys.executable, "-c", code], check=False)


def do_child(trial):
    child = subprocess.Popen(["sleep", "1000"])
    Path(trial.settings["child"]).write_text(str(child.pid))
    child.wait()


def do_words(trial):
    return Outcome({"x": "many"})


def do_lock(trial):
    network = nn.Linear(1, 1)
    network.lock = __import__("threading").Lock()
    return Outcome({}, network)


def do_escape(trial):
    return Outcome({}, files={"../../outside": b""})


def do_memory(trial):
    import psutil

    memory = psutil.Process().memory_info()
    return Outcome({"private": float(memory.rss - memory.shared)})


def do_meet(trial):
    """Ends only if the other one is there at the same time."""
    folder = Path(trial.settings["folder"])
    (folder / trial.settings["name"]).write_text("")
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    return Outcome({})


DEEDS = {
    "well": do_well,
    "raise": do_raise,
    "refuse": do_refuse,
    "leave": do_leave,
    "exit": do_exit,
    "segfault": do_segfault,
    "hang": do_hang,
    "hang_in_c": do_hang_in_c,
    "allocate": do_allocate,
    "eat": do_eat,
    "eat_in_child": do_eat_in_child,
    "child": do_child,
    "words": do_words,
    "lock": do_lock,
    "escape": do_escape,
    "memory": do_memory,
    "meet": do_meet,
}


def misbehave(trial, *shared):
    """Does what its slug says, as badly as it can."""
    Path(trial.settings.get("pid", os.devnull)).write_text(str(os.getpid()))
    return DEEDS[trial.slug](trial)


def dwell(trial, seconds, pids, tensor):
    """Works for a while, then leaves a network: what the kill tests run."""
    (Path(pids) / str(os.getpid())).write_text(trial.label)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tensor = tensor.sin()
    network = nn.Linear(8, 8)
    nn.init.constant_(network.weight, trial.settings["i"])
    return Outcome({"i": float(trial.settings["i"])}, network)


def program(folder: str, count: str, seconds: str) -> None:
    pids = Path(folder) / "pids"
    pids.mkdir(exist_ok=True, parents=True)
    study = Study(Path(folder) / "study.db", {"network": "n", "task": "t"})
    trials = [Trial("dwell", {"i": i}) for i in range(int(count))]
    print("ready", flush=True)
    try:
        rows = study.run(
            trials, dwell, float(seconds), str(pids), torch.randn(100),
            progress=lambda label, news: print(label, flush=True),
        )  # fmt: skip
    except KeyboardInterrupt:
        print(f"stopped after {len(study.rows)} of {count} trials", flush=True)
        sys.exit(130)
    print(f"complete: {len(rows)}", flush=True)


if __name__ == "__main__":
    program(*sys.argv[1:])
