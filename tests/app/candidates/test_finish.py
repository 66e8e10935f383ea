"""The end of `improve`: what cannot be written leaves a note, and the rest of the answer stands."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from netwright.app.candidates import finish
from netwright.app.clock import Clock
from netwright.compress.static_int8 import StaticInt8
from netwright.core.budget import Budget
from netwright.core.files.export import export
from netwright.core.split import take
from netwright.core.task import Task


class Branching(nn.Module):
    """Goes one way or the other by the values that it sees, which no exporter follows."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) if x.sum() > 0 else -self.head(x)


@pytest.fixture
def task() -> Task:
    x = torch.randn(60, 4)
    return Task.from_arrays(x, (x[:, 0] > 0).long())


def test_a_program_that_cannot_be_traced_leaves_a_note(task, tmp_path):
    network = Branching().eval()
    error, notes = finish.program(network, network, task, tmp_path, Clock(600))
    assert error == 0
    assert len(notes) == 1
    assert notes[0].startswith("model.pt2 was not written: this network cannot be traced")
    assert not list(tmp_path.iterdir())


def test_a_program_for_which_no_time_is_left_leaves_a_note(task, tmp_path):
    network = nn.Linear(4, 2).eval()
    _, notes = finish.program(network, network, task, tmp_path, Clock(1, began=time.monotonic() - 600))
    assert "no time was left" in notes[0]
    assert not list(tmp_path.iterdir())


def test_a_program_that_can_be_written_is_there(task, tmp_path):
    network = nn.Linear(4, 2).eval()
    error, notes = finish.program(network, network, task, tmp_path, Clock(600))
    assert (tmp_path / "model.pt2").exists()
    assert error < 1e-6
    assert notes == ()


class Nudged(nn.Module):
    """Another output where the first feature is positive."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by * (x[:, :1] > 0)


def test_files_that_round_differently_leave_a_note(tmp_path):
    x = torch.randn(400, 4).clamp(-1, 1)
    task = Task.from_arrays(x, torch.arange(400) % 4)
    example = task.raw().example(2)
    export(Nudged(0.0), example, tmp_path / "model.onnx")
    export(Nudged(2e-3), example, tmp_path / "model.pt2")
    rows = take(task.raw().val, 256)
    moved = sum(int((x[:, 0] > 0).sum()) for x, _ in rows.batches(64))
    (note,) = finish._apart(tmp_path, task, 256)
    assert f"differ on {moved} of {len(rows)} validation examples, by up to 0.002 of" in note


def test_an_8_bit_network_that_rounds_alike_leaves_none(tmp_path):
    task = Task.from_arrays(torch.randn(400, 12), torch.arange(400) % 3)
    network = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    small = StaticInt8()(network, task, Budget())
    export(small, task.raw().example(2), tmp_path / "model.onnx", task.front)
    _, notes = finish.program(small, small, task, tmp_path, Clock(600))
    assert (tmp_path / "model.pt2").exists()
    assert notes == ()
