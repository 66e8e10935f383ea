"""Folded batch norms: equal outputs where it is allowed, left alone where it is not."""

import torch
import torch.nn.functional as F
from torch import nn

from netwright.core.weights.fold import fold, swap


def trained(network: nn.Module) -> nn.Module:
    """Batch norms with statistics and weights that matter."""
    for m in network.modules():
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 2)
            if m.affine:
                nn.init.normal_(m.weight)
                nn.init.normal_(m.bias)
    return network.eval()


class Awkward(nn.Module):
    """Two norms that may be folded, three that may not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)  # no layer before it
        self.a, self.a_norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)  # folds
        self.b, self.b_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)  # read twice: stays
        self.c, self.c_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)  # run twice: stays
        self.d, self.d_norm = nn.Linear(8, 5), nn.BatchNorm1d(5, affine=False)  # folds

    def forward(self, x):
        x = F.relu(self.a_norm(self.a(self.first(x))))
        y = self.b(x)
        x = self.b_norm(y) + y
        for _ in range(2):
            x = self.c_norm(self.c(x))
        return self.d_norm(self.d(x.mean((2, 3))))


def test_folds_what_it_may_and_nothing_else() -> None:
    network, x = trained(Awkward()), torch.randn(2, 3, 8, 8)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    folded = fold(network, x)
    assert torch.allclose(folded(x), network(x), atol=1e-5, rtol=1e-4)
    gone = {n for n, m in folded.named_modules() if isinstance(m, nn.Identity)}
    assert gone == {"a_norm", "d_norm"}
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_linear_over_a_sequence_is_left_alone() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(5)

        def forward(self, x):
            return self.norm(self.layer(x))  # (B, 5, 6): the norm's channels are time steps

    network, x = trained(Sequence()), torch.randn(3, 5, 4)
    assert torch.allclose(fold(network, x)(x), network(x), atol=1e-6)


def test_shared_weights_are_left_alone() -> None:
    a, b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    b.weight = a.weight
    network, x = trained(nn.Sequential(a, nn.BatchNorm2d(4), b)), torch.randn(2, 4, 3, 3)
    assert torch.allclose(fold(network, x)(x), network(x), atol=1e-6)


def test_swap_replaces_copies_shared_ones_once() -> None:
    shared = nn.ReLU()
    network = nn.Sequential(nn.Linear(3, 3), shared, nn.Sequential(nn.Linear(3, 3), shared))
    swapped = swap(network, lambda _, m: isinstance(m, nn.ReLU), lambda *_: nn.Tanh())
    assert isinstance(network[1], nn.ReLU)
    assert isinstance(swapped[1], nn.Tanh)
    assert swapped[1] is swapped[2][1]
    assert torch.equal(swapped[0].weight, network[0].weight)
    whole = swap(shared, lambda _, m: isinstance(m, nn.ReLU), lambda *_: nn.Tanh())
    assert isinstance(whole, nn.Tanh)
