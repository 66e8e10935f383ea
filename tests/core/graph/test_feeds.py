"""What counts as a feed-forward, and where what it gives is added to something."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netwright.core.graph.feeds import Feed, feeds, gated
from netwright.core.graph.trace import trace


class Net(nn.Module):
    """(B, T, 4) through what `run` makes of the layers a, b (4, 6), c (6, 4) and both (4, 12)."""

    def __init__(self, run):
        super().__init__()
        self.run = run
        self.a, self.b, self.c, self.both = (
            nn.Linear(4, 6),
            nn.Linear(4, 6),
            nn.Linear(6, 4),
            nn.Linear(4, 12),
        )
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return self.run(self, x)


def found(run):
    network = Net(run).eval()
    return feeds(network, trace(network, torch.randn(2, 3, 4)))


def halves(m, x, dim=-1, back=False):
    first, second = m.both(x).chunk(2, dim)
    return m.c(F.silu(second) * first if back else F.silu(first) * second)


FOUND = {
    "plain": (lambda m, x: m.c(F.relu(m.a(x))), Feed(None, "a", "c", "relu")),
    "added": (lambda m, x: x + m.drop(m.c(m.drop(F.gelu(m.a(x))))), Feed(None, "a", "c", "gelu", adds="")),
    "added first": (lambda m, x: m.c(F.mish(m.a(x))) + x, Feed(None, "a", "c", "mish", adds="")),
    "in place": (
        lambda m, x: m.c(F.relu_(m.a(x))).add_(x),
        Feed(None, "a", "c", "relu", adds=""),
    ),
    "tanh": (
        lambda m, x: m.c(F.gelu(m.a(x), approximate="tanh")),
        Feed(None, "a", "c", "gelu-tanh"),
    ),
    "gate": (lambda m, x: x + m.c(F.silu(m.a(x)) * m.b(x)), Feed("a", "b", "c", "silu", adds="")),
    "gate second": (lambda m, x: m.c(m.b(x) * m.drop(F.silu(m.a(x)))), Feed("a", "b", "c", "silu")),
    "halves": (halves, Feed("both", "both", "c", "silu")),
    "halves, gate second": (
        lambda m, x: x + halves(m, x, back=True),
        Feed("both", "both", "c", "silu", gate_first=False, adds=""),
    ),
    "scaled before it is added": (lambda m, x: x + 0.5 * m.c(F.relu(m.a(x))), Feed(None, "a", "c", "relu")),
    "a number is added": (lambda m, x: m.c(F.relu(m.a(x))) + 1, Feed(None, "a", "c", "relu")),
    "added to what is spread": (lambda m, x: m.c(F.relu(m.a(x))) + x[:, :1], Feed(None, "a", "c", "relu")),
    "read twice": (
        lambda m, x: (lambda y: x + y + y.mean())(m.c(F.relu(m.a(x)))),
        Feed(None, "a", "c", "relu"),
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name):
    run, expected = FOUND[name]
    assert found(run) == [expected]


MISSED = {
    "no activation": lambda m, x: m.c(m.a(x)),
    "another activation": lambda m, x: m.c(m.a(x).exp()),
    "units read elsewhere": lambda m, x: (lambda h: m.c(h) + h.mean())(F.relu(m.a(x))),
    "what comes before is read elsewhere": lambda m, x: (lambda z: m.c(F.relu(z)) + z.mean())(m.a(x)),
    "the gate's input is another": lambda m, x: m.c(F.silu(m.a(x)) * m.b(x + 1)),
    "a layer runs twice": lambda m, x: m.c(F.relu(m.a(m.c(F.relu(m.a(x)))))),
    "a product of two readers": lambda m, x: (lambda h: m.c(h) + h.mean())(F.silu(m.a(x)) * m.b(x)),
    "not a module's weight": lambda m, x: F.linear(F.relu(m.a(x)), m.c.weight),
}


@pytest.mark.parametrize("name", MISSED)
def test_what_is_none(name):
    assert found(MISSED[name]) == []


def test_gated_ones_alone_and_the_module_that_adds():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net(lambda m, x: m.c(F.silu(m.a(x)) * m.b(x)))

        def forward(self, x):
            return x + self.net(x)

    network = nn.Sequential(Inner(), Net(lambda m, x: x + m.c(F.relu(m.a(x))))).eval()
    graph = trace(network, torch.randn(2, 3, 4))
    first, second = feeds(network, graph)
    assert (first.down, first.adds) == ("0.net.c", "0")
    assert (second.down, second.adds) == ("1.c", "1")
    assert gated(network, graph) == [first]
