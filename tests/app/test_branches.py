"""A network of one's own that branches on its values, from the command line to the folder and back."""

from __future__ import annotations

import torch

from netwright.app.clock import Clock
from netwright.app.one import run
from netwright.app.screen import View
from netwright.core.files.load import load
from netwright.core.files.rows import RowByRow, in_batches
from netwright.data import task as open_task

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        y = self.a(x)
        if y.max(1).values > 0.6:
            return y
        return y + self.b(x)

def make():
    torch.manual_seed(0)
    return Net()
"""


def test_compiled_from_the_command_line_and_loaded_again(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    source = f"{tmp_path / 'net.py'}:make"
    found = run(
        "compress", "dycl", source, "digits", Clock(60.0), settings={}, seed=0, out=tmp_path / "out",
        view=View(quiet=True), task_options={}, state=None, trust_pickle=False, as_it_is=True,
    )  # fmt: skip
    assert found["after"]["accuracy"] == found["before"]["accuracy"]
    network, staged = load(source), load(tmp_path / "out" / "model")
    task = open_task("digits")
    x = task.example(20)[0]
    given, said = in_batches(network, task)
    assert isinstance(given, RowByRow)
    assert "row by row" in said
    with torch.no_grad():
        expected = torch.cat([network(row) for row in x.split(1)])
    torch.testing.assert_close(given(x), expected)
    torch.testing.assert_close(staged(x), expected, rtol=1e-4, atol=1e-5)
    assert len({staged.way(row) for row in x.split(1)}) == 2
    plain = torch.nn.Flatten()
    assert in_batches(plain, task) == (plain, "")
