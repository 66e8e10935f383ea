"""Bounds contain what the network computes: 100,000 sampled outputs per network, activations, poolings, layouts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netwright.core.errors import NotApplicable, UnsupportedOperator
from netwright.verify.parts.bounds import Interval, crown_bounds, interval_bounds, lines, lowest, pool, read

SAMPLES = 100_000


class Residual(nn.Module):
    """Batch norm, a residual block, max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.norm1 = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        x = F.relu(x + self.norm1(self.conv1(x)))
        return self.head(F.max_pool2d(x, 3, stride=2, padding=1).mean(3).flatten(1))


class Branches(nn.Module):
    """Concatenation, splitting, pooling of both kinds, depthwise and strided convolution, other activations."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.head, self.gate = nn.Linear(40, 4), nn.Linear(40, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.left(x), 0.2)
        a, b, c = F.pad(self.deep(x), (0, 1, 1, 0)).split([1, 1, 1], 1)
        low = torch.cat([F.avg_pool2d(x, 2), F.max_pool2d(x, 2, ceil_mode=True)], 1)
        y = torch.cat([low.flatten(1), F.relu6(3 * (a - b) + c)[:, :, :-1, 1:].flatten(1)], 1)
        z = F.hardtanh(y - 0.2).permute(1, 0).permute(1, 0)
        return (
            0.5 * self.head(z)
            - torch.sigmoid(2 * self.gate(z))
            + torch.tanh(self.gate(y)) / 3
            + a.sum((1, 2, 3))[:, None]
        )


def _mlp(activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 20), activation(), nn.Linear(20, 20), activation(), nn.Linear(20, 3)
    )


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


NETWORKS = {
    "residual": Residual, "branches": Branches, "cnn": _cnn, "mlp": lambda: _mlp(nn.ReLU),
    "sigmoid": lambda: _mlp(nn.Sigmoid), "tanh": lambda: _mlp(nn.Tanh), "relu6": lambda: _mlp(nn.ReLU6),
}  # fmt: skip


def prepared(make) -> nn.Module:
    net = make()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            module.weight.data *= 2  # so that activations leave their linear range
    return net.eval()


def both_sides(program, bounds, **options) -> tuple[Tensor, Tensor]:
    eye = torch.eye(program.output.size)
    rows = torch.cat([eye, -eye])[None].expand(len(bounds[program.input].lower), -1, -1)
    found = lowest(program, program.output, rows, bounds, **options)
    return found[:, : len(eye)], -found[:, len(eye) :]


def sampled(net: nn.Module, x: Tensor, radius: float, count: int) -> tuple[Tensor, Tensor]:
    """Least and greatest outputs over corners, uniform points and the centre of each box: (B, C) each."""
    low = high = net(x)
    for chunk in range(0, count, 5000):
        noise = torch.rand(5000, *x.shape) * 2 - 1
        noise[::2] = noise[::2].sign()
        if chunk == 0:  # towards the corners that the gradient points at, where a bound is most at risk
            noise[0] = net_gradient(net, x).sign()
            noise[2] = -noise[0]
        out = net((x + radius * noise).flatten(0, 1)).reshape(5000, len(x), -1)
        low, high = torch.minimum(low, out.amin(0)), torch.maximum(high, out.amax(0))
    return low, high


def net_gradient(net: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(net(x)[:, 0].sum(), x)[0]


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_contains_sampled_outputs(name):
    net = prepared(NETWORKS[name])
    x = torch.randn(2, 1, 8, 8)
    program = read(net, x)
    for radius, count in ((0.0, 1), (0.02, SAMPLES // 10), (0.2, SAMPLES)):
        box = Interval(x - radius, x + radius)
        intervals, tight = interval_bounds(program, box), crown_bounds(program, box)
        least, most = sampled(net, x, radius, count)
        widths = []
        for lower, upper in (
            (t.flatten(1) for t in intervals[program.output]),
            both_sides(program, intervals, ends="interval"),
            both_sides(program, intervals),
            both_sides(program, tight),
        ):
            assert bool((lower <= least).all())
            assert bool((upper >= most).all())
            widths.append((upper - lower).mean().item())
        assert widths[1] <= widths[0] + 1e-5
        if radius == 0:
            assert max(widths) < 1e-3
        else:
            assert widths[3] < widths[0]
            # intermediate bounds too, of every step
            for step in program.steps:
                assert bool((tight[step].lower <= tight[step].upper).all())


@torch.no_grad()
@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.ReLU6, nn.Hardtanh])
def test_contains_all_outputs_over_a_plane(activation):
    """Two inputs, a grid of 320 x 320 points: the true range is seen, so a relaxation with a fault has no room."""
    for seed in range(4):
        torch.manual_seed(seed)
        layers = nn.Linear(2, 6), activation(), nn.Linear(6, 6), activation(), nn.Linear(6, 2)
        net = prepared(lambda: nn.Sequential(*layers).double())  # noqa: B023
        side = torch.linspace(-1, 1, 320, dtype=torch.float64)
        x, radius = torch.randn(1, 2, dtype=torch.float64), 0.5
        out = net(x + radius * torch.cartesian_prod(side, side))
        program, box = read(net, x), Interval(x - radius, x + radius)
        bounds = crown_bounds(program, box)
        rows = torch.randn(1, 50, 2, dtype=torch.float64)
        least = (rows[0] @ out.T).min(1).values
        for found in (bounds, interval_bounds(program, box)):
            low = lowest(program, program.output, rows, found)[0]
            assert bool((low <= least + 1e-12).all())
        assert bool(
            (
                lowest(program, program.output, rows, interval_bounds(program, box), ends="interval") <= least
            ).all()
        )


def test_exact_on_an_affine_network():
    """No relaxation: CROWN and merged intervals give the exact minimum, plain intervals need not."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 8),
        nn.Linear(8, 3),
    ).double()  # fmt: skip
    net.train()(torch.randn(16, 2, 4, 4, dtype=torch.float64))
    net.eval()
    x = torch.randn(5, 2, 4, 4, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: net(v[None])[0]))(x)
    wanted = net(x) - 0.3 * jacobian.abs().flatten(2).sum(2)
    program, box = read(net, x), Interval(x - 0.3, x + 0.3)
    rows = torch.eye(3, dtype=torch.float64)[None].expand(5, -1, -1)
    for ends in ("input", "interval"):
        found = lowest(program, program.output, rows, interval_bounds(program, box), ends=ends)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    assert bool((interval_bounds(program, box)[program.output].lower < wanted - 1e-3).any())


FUNCTIONS = {
    "relu": (torch.relu, lambda i: lines.leaky_relu(i, 0.0)),
    "leaky": (lambda v: F.leaky_relu(v, 0.3), lambda i: lines.leaky_relu(i, 0.3)),
    "relu, slope": (torch.relu, lambda i: lines.leaky_relu(i, 0.0, torch.tensor(0.37, dtype=torch.float64))),
    "sigmoid": (torch.sigmoid, lines.sigmoid),
    "tanh": (torch.tanh, lines.tanh),
    "hardtanh": (F.hardtanh, lambda i: lines.clamp(i, -1.0, 1.0)),
    "relu6": (F.relu6, lambda i: lines.clamp(i, 0.0, 6.0)),
    "floor only": (lambda v: v.clamp(min=-0.5), lambda i: lines.clamp(i, -0.5, float("inf"))),
    "ceiling only": (lambda v: v.clamp(max=0.5), lambda i: lines.clamp(i, -float("inf"), 0.5)),
}
ends = st.floats(-12, 12, allow_nan=False)


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=150, deadline=None)
@given(a=ends, b=ends)
def test_lines_enclose_their_function(name, a, b):
    function, relax = FUNCTIONS[name]
    low, high = torch.tensor([min(a, b)]).double(), torch.tensor([max(a, b)]).double()
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64) * (high - low) + low
    (ls, li), (us, ui) = relax(Interval(low, high))
    value = function(grid)
    assert bool((ls * grid + li <= value + 1e-12).all())
    assert bool((us * grid + ui >= value - 1e-12).all())
    # lines that touch nowhere would enclose too: the upper line meets the function somewhere on the interval
    slack = (us * grid + ui - value).min() + (value - ls * grid - li).min()
    assert slack < 1e-2 * (1 + (high - low)).item()


POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 2, "dilation": 2, "stride": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
]


@pytest.mark.parametrize("options", POOLS)
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_planes_enclose_the_maximum(options, shift):
    """Any rows: the linear function below them is below the pooled value at random points of the box."""
    net = nn.MaxPool2d(**options).double()
    x = torch.randn(2, 2, 6, 7, dtype=torch.float64) + shift
    radius = torch.rand_like(x) * (torch.rand(2, 2, 1, 1) < 0.7)
    program, box = read(net, x), Interval(x - radius, x + radius)
    step = program.output
    rows = torch.randn(2, 5, *step.shape, dtype=torch.float64)
    bounds = interval_bounds(program, box)
    (back,), added = pool.backward(step, rows, bounds[program.input])
    for _ in range(200):
        point = torch.where(torch.rand_like(x) < 0.5, x + radius * (2 * torch.rand_like(x) - 1),
                            torch.where(torch.rand_like(x) < 0.5, x - radius, x + radius))  # fmt: skip
        true = torch.einsum("brn,bn->br", rows.flatten(2), net(point).flatten(1))
        line = torch.einsum("brn,bn->br", back.flatten(2), point.flatten(1)) + added
        assert bool((line <= true + 1e-9).all())
    # what is decided is exact
    decided = interval_bounds(program, Interval(x, x))
    (back,), added = pool.backward(step, rows, decided[program.input])
    torch.testing.assert_close(
        torch.einsum("brn,bn->br", back.flatten(2), x.flatten(1)) + added,
        torch.einsum("brn,bn->br", rows.flatten(2), net(x).flatten(1)),
    )


def test_neither_batch_nor_block_matters():
    net = prepared(Residual)
    x = torch.randn(3, 1, 8, 8)
    program, box = read(net, x), Interval(x - 0.1, x + 0.1)
    together = crown_bounds(program, box)
    small = crown_bounds(program, box, block=1)
    for step in program.steps:
        torch.testing.assert_close(together[step], small[step])
        for n in range(3):
            alone = crown_bounds(program, Interval(box.lower[n : n + 1], box.upper[n : n + 1]))
            torch.testing.assert_close(alone[step].lower[0], together[step].lower[n], rtol=1e-5, atol=1e-5)


class Tokens(nn.Module):
    """A linear layer on (B, T, F): its product folds batch and T into one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 6), nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(F.relu(self.inner(x)).transpose(1, 2).flatten(1))


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(F.relu(self.inner(x.reshape(1, 12))))


@torch.no_grad()
def test_any_layout_of_the_batch():
    x = torch.randn(2, 3, 4)
    for net in (Tokens(), FixedBatch()):
        program, box = read(net, x), Interval(x - 0.1, x + 0.1)
        lower, upper = both_sides(program, crown_bounds(program, box))
        for n in range(2):
            for _ in range(100):
                out = net(x[n : n + 1] + 0.1 * (2 * torch.rand(1, 3, 4) - 1))
                assert bool(((lower[n] <= out[0]) & (out[0] <= upper[n])).all())
        assert bool((upper - lower < 2).all())


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class Ratio(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1 / (x + 3)


def test_what_it_cannot_read_is_named():
    x = torch.randn(2, 3)
    with pytest.raises(UnsupportedOperator, match=r"node 'sin' uses the operator aten\.sin"):
        read(Sine(), x)
    for net in (Square(), Ratio(), nn.LeakyReLU(-0.5)):
        with pytest.raises(NotApplicable):
            read(net, x)
