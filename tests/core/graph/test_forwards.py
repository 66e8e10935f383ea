"""Forwards written in ways that need care: views that are written to, weights cut by constants, masks with -inf."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.graph import dependencies, mask, prune, trace


class Written(nn.Module):
    """Half of the channels are added to the others through a view; the input is normalised in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x.sub_(0.5)).relu()
        h[:, :4] += h[:, 4:]
        return self.out(h)


class Padded(nn.Module):
    """Positions that are padded reach a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 6, 3), nn.Linear(6 * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.pad(self.conv(x).relu(), (1, 1, 1, 1)).flatten(1))


class Causal(nn.Module):
    """Masked scores are minus infinity, also those of heads that are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.flatten(1).view(-1, 24, 8)).view(-1, 24, 3, 4, 2).permute(2, 0, 3, 1, 4)
        future = torch.ones(24, 24, dtype=torch.bool, device=x.device).triu(1)
        scores = (q @ k.transpose(-1, -2)).masked_fill(future, float("-inf"))
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Cut(nn.Module):
    """A weight that the forward cuts at a fixed place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.out = nn.Parameter(torch.randn(8, 192)), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.out(
            torch.cat([F.linear(x, self.weight[:4]), F.linear(x, self.weight[4:]) * 2], 1).sub(20).relu()
        )


class Steps(nn.Module):
    """Hidden units of every step side by side, by a view with constants."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(24, 6, batch_first=True), nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.lstm(x.flatten(1).view(-1, 8, 24))
        return self.out(steps.contiguous().view(x.shape[0], 48))


class Transposed(nn.Module):
    """A transposed convolution in one dimension, each channel for itself; the view bakes the channels in."""

    def __init__(self, multiplier: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 1)
        self.up = nn.ConvTranspose1d(4, 4 * multiplier, 2, 2, groups=4)
        self.out = nn.Conv1d(4 * multiplier, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.up(self.conv(x.flatten(2)).relu().view(-1, 4, 64)).relu())


NETWORKS = {
    "written": Written, "padded": Padded, "causal": Causal, "cut": Cut, "steps": Steps,
    "transposed": lambda: Transposed(1), "transposed, multiplied": lambda: Transposed(2),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_equals_masked(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    example = (torch.randn(2, 3, 8, 8),)
    before = example[0].clone()
    found = dependencies(trace(network, example))
    assert found.groups
    for keep in (
        {g.name: range(0, g.size, 2) for g in found.groups},
        *({g.name: [g.size - 1]} for g in found.groups),
    ):
        small, masked = prune(network, example, keep, found), mask(network, keep, found)
        x = torch.randn(5, 3, 8, 8)
        for got in (small, pickle.loads(pickle.dumps(copy.deepcopy(small)))):
            with torch.no_grad():
                torch.testing.assert_close(got(x.clone()), masked(x.clone()), atol=1e-5, rtol=1e-5)
    assert torch.equal(example[0], before)


def test_the_smaller_class_is_not_taken_on_the_word_of_one_input() -> None:
    """On the example, the half that the class cuts off wrongly is silent."""
    network = Cut().eval()
    example = (torch.ones(1, 3, 8, 8) + 0.01 * torch.randn(1, 3, 8, 8),)
    with torch.no_grad():
        network.weight[4:] = -network.weight[4:].abs()
        network.weight[:4] = network.weight[:4].abs()
    found = dependencies(trace(network, example))
    keep = {group.name: [0, 1] for group in found.groups}
    small, masked = prune(network, example, keep, found), mask(network, keep, found)
    x = 3 * torch.randn(9, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(small(x), masked(x), atol=1e-5, rtol=1e-5)
