"""kill -9 and Ctrl-C at random moments: nothing lost, nothing doubled, nothing left running."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.core.study.test_study_failures import gone

from netwright.core.study.study import Study

PROGRAM = Path(__file__).with_name("study_functions.py")
COUNT, SECONDS = 8, 0.2


def start(folder, count=COUNT, seconds=SECONDS):
    return subprocess.Popen(
        [sys.executable, PROGRAM, folder, str(count), str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(process, word):
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(f"ended without '{word}'")


def finished(folder):
    """Trials on record and when each was finished."""
    with sqlite3.connect(f"file:{folder}/study.db?mode=ro", uri=True) as database:
        return dict(database.execute("select label, finished from trials where status = 'done'"))


def check_workers_gone(folder):
    for path in (folder / "pids").iterdir():
        assert gone(int(path.name)), f"worker {path.name} outlived its study"
        path.unlink()


def check_complete(folder, count=COUNT):
    study = Study(folder / "study.db", {"network": "n", "task": "t"})
    assert [r["i"] for r in study.rows] == list(range(count))
    assert {r["status"] for r in study.rows} == {"done"}
    for row in study.rows:
        assert torch.all(study.network(row["key"]).weight == row["i"])
    assert sorted(p.name for p in study.folder.iterdir()) == sorted(r["key"] for r in study.rows)


def kill_at_random(folder, kills, rng, longest, count=COUNT):
    """Kill the study's process group so often, then let it end; each time all that was on record stays."""
    kept = {}
    for kill in range(kills):
        process = start(folder, count)
        if kill % 2:  # any moment: while the study opens, the fork server loads, trials run
            wait_for(process, "ready")
            time.sleep(rng.uniform(0, longest))
        else:  # on a busy machine too, some moment while trials run and rows are written
            wait_for(process, "dwell")
            time.sleep(rng.uniform(0, 1))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        check_workers_gone(folder)
        now = finished(folder)
        assert kept.items() <= now.items(), "a row was lost or written again"
        kept = now
    assert len(kept) < count, "the last kill came too late to tell anything"
    output, _ = start(folder, count).communicate(timeout=120)
    assert output.splitlines()[-1] == f"complete: {count}"
    assert kept.items() <= finished(folder).items()
    check_complete(folder, count)


def test_kill_nine_of_the_group_at_random_moments(tmp_path):
    kill_at_random(tmp_path, 4, random.Random(1), longest=4.0, count=20)


@pytest.mark.slow
def test_kill_nine_twenty_times(tmp_path):
    kill_at_random(tmp_path, 20, random.Random(2), longest=4.0, count=150)


def test_interrupted_keeps_what_was_finished_and_goes_on(tmp_path):
    process = start(tmp_path)
    wait_for(process, "i 1")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped after" in output
    assert "Traceback" not in output
    check_workers_gone(tmp_path)
    before = finished(tmp_path)
    assert 2 <= len(before) < COUNT
    assert start(tmp_path).communicate(timeout=60)[0].splitlines()[-1] == f"complete: {COUNT}"
    assert before.items() <= finished(tmp_path).items()
    check_complete(tmp_path)


def test_a_worker_that_hangs_in_c_does_not_outlive_its_study(tmp_path):
    """Only the study's own process is killed, not its group, and no thread of the worker can run."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import study_functions as f\n"
        "import cloudpickle; cloudpickle.register_pickle_by_value(f)\n"
        "from netwright.core.study.study import *\n"
        "Study(sys.argv[2] + '/study.db', {}).run("
        "[Trial('hang_in_c', {'pid': sys.argv[2] + '/pid'})], f.misbehave)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, PROGRAM.parent, tmp_path])
    note = tmp_path / "pid"
    while not (note.exists() and note.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)
    process.kill()
    process.wait()
    assert gone(int(note.read_text()))


def test_ctrl_c_while_the_fork_server_loads_torch_leaves_no_traceback():
    code = (
        "import os, signal, time\n"
        "from netwright.core.study.processes import Processes\n"
        "try:\n"
        "    Processes().warm()\n"
        "    time.sleep(0.5)\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped')\n"
        "    time.sleep(1)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True
    )
    assert (found.stdout, found.stderr) == ("stopped\n", "")


def test_disk_full_ends_the_study_and_what_was_finished_is_kept(tmp_path):
    """The limit on the size of a file stands for the disk: a network that is too large cannot be written."""
    code = (
        "import resource, sys, torch\n"
        "from netwright.core.study.study import Outcome, Study, Trial\n"
        "from netwright.core.errors import BadInput\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))\n"
        "work = lambda trial: Outcome({'x': 1.0}, torch.nn.Linear(trial.settings['n'], 100))\n"
        "study = Study(sys.argv[1] + '/study.db', {})\n"
        "try:\n"
        "    print(len(study.run([Trial('a', {'n': n}) for n in (1, 2, 5000)], work)), 'rows')\n"
        "except BadInput as error:\n"
        "    print(error, len(study.rows), 'rows')\n"
    )
    run = lambda size: subprocess.run(
        [sys.executable, "-c", code, tmp_path, str(size)], capture_output=True, text=True, check=True
    ).stdout.strip()
    said = run(1_000_000)
    assert said.startswith(f"cannot write {tmp_path}/study.files: ")
    assert said.endswith(
        "for want of space. What was finished is kept; the same call goes on from here. 2 rows"
    )
    assert run(-1) == "3 rows"
