"""Equal ranges, and the outputs of before."""

import copy

import pytest
import torch
from tests.conformance.networks import NETWORKS, subject
from torch import nn

from netwright.compress.parts.equalise import equalise
from netwright.core.network import as_tuple
from netwright.core.weights.fold import fold


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay_on_awkward_networks(name) -> None:
    network, task = subject(name)
    inputs = task.example(8)
    folded = fold(network, inputs)
    before = folded(*as_tuple(inputs)).detach()
    equalise(folded, inputs)
    assert torch.allclose(folded(*as_tuple(inputs)), before, atol=1e-4 * before.abs().max().item())


def test_two_layers_get_the_papers_ranges() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 9, 4))
    with torch.no_grad():
        net[0].weight.mul_(torch.logspace(-2, 2, 6).view(-1, 1, 1, 1))
    first, second = (copy.deepcopy(net[i]) for i in (0, 4))
    x = torch.rand(2, 3, 8, 8)
    before = net(x).detach()
    assert equalise(net, x, sweeps=1) == 1
    made = first.weight.abs().flatten(1).amax(1)
    read = second.weight.view(4, 6, 9).abs().amax((0, 2))
    wanted = (made * read).sqrt()
    assert torch.allclose(net[0].weight.abs().flatten(1).amax(1), wanted, rtol=1e-4)
    assert torch.allclose(net[4].weight.view(4, 6, 9).abs().amax((0, 2)), wanted, rtol=1e-4)
    assert torch.allclose(net[0].bias, first.bias * wanted / made, rtol=1e-4)
    assert torch.allclose(net(x), before, atol=1e-4 * before.abs().max().item())


@pytest.mark.parametrize("between", [nn.Sigmoid(), nn.GELU(), nn.ReLU6(), nn.BatchNorm1d(8)], ids=str)
def test_what_lets_no_factor_through_is_left_alone(between) -> None:
    net = nn.Sequential(nn.Linear(4, 8), between, nn.Linear(8, 3)).eval()
    assert equalise(net, torch.rand(3, 4)) == 0


def test_what_is_added_or_multiplied_is_looked_at() -> None:
    class Added(nn.Module):
        def __init__(self, times: bool) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)
            self.times = times

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.a(x).relu(), self.b(x).relu()
            return self.c(a * b if self.times else a + b)

    for times in (False, True):
        net, x = Added(times), torch.rand(3, 4)
        before, old = net(x).detach(), net.a.weight.detach().clone()
        assert equalise(net, x) == (0 if times else 1)
        assert torch.allclose(net(x), before, atol=1e-5)
        assert torch.equal(net.a.weight, old) == times
