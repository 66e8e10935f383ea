"""What calibrators share: when the optimiser stops, and what it leaves of the budget."""

import pytest
import torch
from torch import Tensor, nn

from netwright.calibrate.parts import fitting
from netwright.core.budget import Budget
from netwright.core.task import Task


def minimised(scale: float, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, int]:
    """Where a quartic's minimum is found, and after how many rounds."""
    rounds = []
    monkeypatch.setattr(fitting.progress, "step", lambda done, total, note: rounds.append(done))
    at = torch.tensor([5.0, -3.0], dtype=torch.float64)
    loss = lambda: scale * ((at - torch.tensor([1.0, 2.0])) ** 2 + 0.1 * (at - 1) ** 4).sum()
    fitting.minimise([at], loss, Budget().start(), "")
    return at, len(rounds)


def test_it_stops_at_the_minimum_whatever_the_size_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    # by hand: the second coordinate solves 2 (a - 2) + 0.4 (a - 1)^3 = 0
    a = torch.tensor(1.8).double()
    for _ in range(50):
        a = a - (2 * (a - 2) + 0.4 * (a - 1) ** 3) / (2 + 1.2 * (a - 1) ** 2)
    for scale in (1e-3, 1.0, 1e9):  # the last one's gradient is never as small as the rule asks
        at, rounds = minimised(scale, monkeypatch)
        assert at.tolist() == pytest.approx([1.0, a.item()], abs=1e-4)
        assert not at.requires_grad
        assert rounds < 25


def test_half_of_the_seconds_are_for_reading_the_validation_split(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    real = fitting.within
    monkeypatch.setattr(fitting, "within", lambda seconds: given.append(seconds) or real(seconds))
    x, y = torch.randn(50, 3), torch.arange(50) % 3
    fitting.validation_logits(nn.Identity(), Task.from_arrays(x, y), Budget(seconds=10))
    assert given == [5]
