"""LSTM projections: which units there are, and that cutting equals masking, in float64."""

from __future__ import annotations

import pytest
import torch
from tests.core.graph.masked import held_to_its_mask
from torch import Tensor, nn

from netwright.core.graph.prune import prune


class Projected(nn.Module):
    """An LSTM with projections, perhaps with an initial state made of its input."""

    def __init__(self, layers: int, both: bool, state: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12, layers, batch_first=True, bidirectional=both, proj_size=5)
        self.starts = nn.ModuleList([nn.Linear(8, 5), nn.Linear(8, 12)]) if state else None
        self.last = nn.Linear(5 * (1 + both), 3)

    def forward(self, x: Tensor) -> Tensor:
        first = None
        if self.starts is not None:
            first = tuple(start(x[:, 0])[None] for start in self.starts)
        steps, (h, c) = self.lstm(x, first)
        return self.last(steps[:, -1]) + h.sum((0, 2))[:, None] + c.mean((0, 2))[:, None]


@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, False), (2, True)])
def test_hidden_and_projected_units_of_an_lstm(layers: int, both: bool) -> None:
    torch.manual_seed(0)
    net = ProjectedAlone(layers, both).double().eval()
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    sizes = held_to_its_mask(net, x)
    assert sorted(sizes.values()) == [5, 12]
    small = prune(net, x, {name: range(size // 2) for name, size in sizes.items()})
    assert (small.lstm.hidden_size, small.lstm.proj_size) == (6, 2)
    assert small.lstm.weight_hr_l0.shape == (2, 6)


class ProjectedAlone(Projected):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.lstm(x)[0][:, -1])


def test_states_that_start_and_leave_an_lstm_share_its_units() -> None:
    """The state that is given is tied to the hidden units; a mean over them needs them all, a sum does not."""
    torch.manual_seed(0)
    net = Projected(1, False, state=True).double().eval()
    sizes = held_to_its_mask(net, torch.randn(3, 7, 8, dtype=torch.float64))
    assert list(sizes.values()) == [5]
