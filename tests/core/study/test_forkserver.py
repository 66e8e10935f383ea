"""The process of which workers are forks starts before torch is loaded and goes with the command."""

import contextlib
import subprocess
import sys

import psutil

CODE = """
import multiprocessing.forkserver as server, sys
from netwright.core.study.forkserver import warm
warm()
warm()
assert not {"torch", "numpy"} & set(sys.modules)
print(server._forkserver._forkserver_pid)
"""


def test_it_needs_no_torch_here_and_is_gone_when_we_are():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(int(done.stdout)).status() == psutil.STATUS_ZOMBIE
