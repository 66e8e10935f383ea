import pytest
import torch
from torch import nn

from netwright.core.weights.initialise import reinitialised
from netwright.models import build, names


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.full((1, 4), 7.0))
        self.scale = nn.Parameter(torch.full((4,), 0.01))
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.lstm = nn.LSTM(4, 3)


def test_weights_are_new_seeded_and_the_given_network_is_untouched():
    net = Mixed()
    net.norm.running_mean.fill_(3)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    a, b, c = (reinitialised(net, seed) for seed in (1, 1, 2))
    for (name, x), y, z in zip(a.named_parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(x, y)
        assert torch.isfinite(x).all()
        if x.dim() >= 2:
            assert not torch.equal(x, z), name
            assert not torch.equal(x, before[name]), name
    assert a.norm.running_mean.eq(0).all()
    assert a.scale.eq(0.01).all(), "a constant vector keeps its constant"
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_distribution_is_that_of_the_module():
    net = nn.Linear(1000, 500)
    nn.init.normal_(net.weight, 5.0)
    fresh = reinitialised(net, 0)
    assert fresh.weight.abs().max() <= 1000**-0.5
    assert abs(fresh.weight.std().item() - 1000**-0.5 / 3**0.5) < 1e-3


SHAPES = {"text-transformer": (20,), "causal-transformer": (20,), "lstm": (7, 5)}


@pytest.mark.parametrize("name", names())
def test_our_networks_start_anew_as_their_constructors_start_them(name):
    """Nothing of trained weights is left: layer scales, positions and embeddings too are as when built."""
    shape = SHAPES.get(name, (3, 32, 32))
    with_seed = lambda seed: (torch.manual_seed(seed), build(name, shape, 10))[1]
    built, trained = with_seed(0), with_seed(1)
    with torch.no_grad():
        for p in trained.parameters():
            p.copy_(torch.randn_like(p) * 3 + 5)
    fresh = dict(reinitialised(trained, 2).named_parameters())
    for parameter, expected in built.named_parameters():
        got = fresh[parameter]
        if bool((expected == expected.flatten()[0]).all()):
            assert torch.equal(got, expected), parameter
            continue
        spread = expected.std().item()
        # some standard errors of the figures of two samples of this size
        slack = 6 / expected.numel() ** 0.5
        assert got.std().item() == pytest.approx(spread, rel=max(slack, 0.02)), parameter
        assert abs(got.mean() - expected.mean()) < spread * max(slack, 0.02), parameter
        assert not torch.equal(got, expected)


def test_a_module_s_own_initialiser_runs_after_those_inside_it():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Linear(3, 3)
            self.again = self.inside
            self.reset_parameters()

        def reset_parameters(self):
            nn.init.eye_(self.inside.weight)

    net = nn.Sequential(Own(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].inside.weight.fill_(9.0)
        net[1].weight.fill_(9.0)
    fresh = reinitialised(net, 0)
    assert torch.equal(fresh[0].inside.weight, torch.eye(3))
    assert fresh[1].weight.abs().max() < 1
