import torch
from torch import nn

from netwright.core.initialise import reinitialised


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
