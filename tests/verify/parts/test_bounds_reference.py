"""Interval and CROWN bounds against a float64 reference written from the papers with explicit matrices, in numpy.

The reference knows networks of one form, z_k = sum_j W_kj a_j + b_k with a_0 = x and a_k = relu(z_k); convolutions,
batch norms, poolings and skips are written out as matrices by loops. It shares nothing with the engine but the
definitions: intermediate bounds are met with intervals, and only neurons of open sign are tightened.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

from netwright.verify.parts.bounds import Interval, crown_bounds, interval_bounds, lowest, read

Layer = tuple[dict[int, np.ndarray], np.ndarray]


def conv_matrix(
    conv: nn.Conv2d, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """A convolution (grouped, strided, padded) as a matrix on the flattened image."""
    weight = conv.weight.detach().numpy()
    (stride, _), (pad, _), (kernel, _) = conv.stride, conv.padding, conv.kernel_size
    channels, height, width = shape
    out_h, out_w = ((side + 2 * pad - kernel) // stride + 1 for side in (height, width))
    outer, inner = weight.shape[:2]
    matrix = np.zeros((outer, out_h, out_w, channels, height, width))
    for o in range(outer):
        group = o // (outer // conv.groups)
        for i in range(out_h):
            for j in range(out_w):
                for c in range(inner):
                    for a in range(kernel):
                        for b in range(kernel):
                            y, x = i * stride + a - pad, j * stride + b - pad
                            if 0 <= y < height and 0 <= x < width:
                                matrix[o, i, j, group * inner + c, y, x] += weight[o, c, a, b]
    bias = np.zeros(outer) if conv.bias is None else conv.bias.detach().numpy()
    places = out_h * out_w
    return matrix.reshape(outer * places, -1), np.repeat(bias, places), (outer, out_h, out_w)


def norm_scale(norm: nn.BatchNorm2d, places: int) -> tuple[np.ndarray, np.ndarray]:
    scale = norm.weight.detach().numpy() / np.sqrt(norm.running_var.numpy() + norm.eps)
    shift = norm.bias.detach().numpy() - norm.running_mean.numpy() * scale
    return np.repeat(scale, places), np.repeat(shift, places)


class Reference:
    """Bounds of rows C z_K of a network given as layers, on the box [low, high]."""

    def __init__(self, layers: list[Layer], low: np.ndarray, high: np.ndarray) -> None:
        self.layers, self.a = layers, [(low, high)]
        self.z: list[tuple[np.ndarray, np.ndarray]] = [(low, high)]

    def interval(self, rows: dict[int, np.ndarray], bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centre, radius = bias.copy(), np.zeros_like(bias)
        for j, weight in rows.items():
            low, high = self.a[j]
            centre += weight @ (low + high) / 2
            radius += np.abs(weight) @ (high - low) / 2
        return centre - radius, centre + radius

    def backward(self, rows: dict[int, np.ndarray], bias: np.ndarray) -> np.ndarray:
        """Lower bound of sum_j rows_j a_j + bias."""
        rows, total = dict(rows), bias.astype(float).copy()
        for j in range(len(self.layers), 0, -1):
            if j not in rows:
                continue
            a, (low, high) = rows.pop(j), self.z[j]
            for n in range(a.shape[1]):
                positive, negative = np.maximum(a[:, n], 0), np.minimum(a[:, n], 0)
                if low[n] >= 0:
                    continue
                if high[n] <= 0:
                    a[:, n] = 0
                    continue
                chord = high[n] / (high[n] - low[n])
                total += negative * (-chord * low[n])
                a[:, n] = positive * (1.0 if high[n] >= -low[n] else 0.0) + negative * chord
            weights, b = self.layers[j - 1]
            total += a @ b
            for i, weight in weights.items():
                rows[i] = rows.get(i, 0) + a @ weight
        low, high = self.a[0]
        return total + np.maximum(rows[0], 0) @ low + np.minimum(rows[0], 0) @ high

    def run(self, crown: bool) -> Reference:
        for weights, bias in self.layers:
            low, high = self.interval(weights, bias)
            if crown:
                for n in np.flatnonzero((low < 0) & (high > 0)):
                    row = {j: w[n : n + 1].copy() for j, w in weights.items()}
                    flipped = {j: -w for j, w in row.items()}
                    low[n] = max(low[n], self.backward(row, bias[n : n + 1])[0])
                    high[n] = min(high[n], -self.backward(flipped, -bias[n : n + 1])[0])
            self.z.append((low, high))
            self.a.append((np.maximum(low, 0), np.maximum(high, 0)))
        return self

    def lowest(self, rows: np.ndarray) -> np.ndarray:
        """Of the last layer, before its relu."""
        weights, bias = self.layers[-1]
        return self.backward({j: rows @ w for j, w in weights.items()}, rows @ bias)


def mlp() -> tuple[nn.Module, list[Layer], tuple[int, ...]]:
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
                        nn.Linear(16, 4)).double()  # fmt: skip
    linears = [m for m in net if isinstance(m, nn.Linear)]
    return (
        net,
        [({k: m.weight.detach().numpy()}, m.bias.detach().numpy()) for k, m in enumerate(linears)],
        (6,),
    )


class _Residual(nn.Module):
    """conv-bn-relu, then a residual block with a strided shortcut and a depthwise convolution, average pool, head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.norm1 = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(6)
        self.short, self.norm3 = nn.Conv2d(4, 6, 1, stride=2), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return self.head(
            nn.functional.adaptive_avg_pool2d(torch.relu(y + self.norm3(self.short(x))), 1).flatten(1)
        )


def scramble(net: nn.Module) -> nn.Module:
    """Batch norm statistics that are no identity."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return net.eval()


def residual() -> tuple[nn.Module, list[Layer], tuple[int, ...]]:
    net = scramble(_Residual().double())

    def normed(conv: nn.Conv2d, norm: nn.BatchNorm2d, shape: tuple[int, int, int]) -> tuple:
        matrix, bias, out = conv_matrix(conv, shape)
        scale, shift = norm_scale(norm, out[1] * out[2])
        return matrix * scale[:, None], bias * scale + shift, out

    w0, b0, s0 = normed(net.conv, net.norm, (2, 4, 4))
    w1, b1, s1 = normed(net.conv1, net.norm1, s0)
    w2, b2, s2 = normed(net.conv2, net.norm2, s1)
    w3, b3, _ = normed(net.short, net.norm3, s0)
    pool = np.kron(np.eye(6), np.full((1, s2[1] * s2[2]), 1 / (s2[1] * s2[2])))
    head = net.head.weight.detach().numpy() @ pool
    layers: list[Layer] = [({0: w0}, b0), ({1: w1}, b1), ({2: w2, 1: w3}, b2 + b3),
                           ({3: head}, net.head.bias.detach().numpy())]  # fmt: skip
    return net, layers, (2, 4, 4)


@pytest.mark.parametrize("radius", [0.0, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("make", [mlp, residual])
def test_equal_to_the_reference(make, radius):
    net, layers, shape = make()
    x = torch.randn(3, *shape, dtype=torch.float64)
    scale = torch.rand(3, *shape, dtype=torch.float64)
    box = Interval(x - radius * scale, x + radius * scale.flip(0))
    program = read(net, x)
    rows = torch.randn(3, 5, program.output.size, dtype=torch.float64)
    intervals, bounds = interval_bounds(program, box), crown_bounds(program, box)
    full = lowest(program, program.output, rows, bounds)
    fast = lowest(program, program.output, rows, intervals)
    merged = lowest(program, program.output, rows, intervals, ends="interval")
    for n in range(3):
        low, high = box.lower[n].flatten().numpy(), box.upper[n].flatten().numpy()
        crown = Reference(layers, low, high).run(crown=True)
        plain = Reference(layers, low, high).run(crown=False)
        c = rows[n].numpy()
        np.testing.assert_allclose(full[n], crown.lowest(c), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(fast[n], plain.lowest(c), rtol=1e-9, atol=1e-9)
        weights, bias = layers[-1]
        last = plain.interval({j: c @ w for j, w in weights.items()}, c @ bias)[0]
        np.testing.assert_allclose(merged[n], last, rtol=1e-9, atol=1e-9)
        relus = [step for step in program.steps if step.op == "aten.relu.default"]
        for k, step in enumerate(relus, 1):
            for found, wanted in ((bounds, crown), (intervals, plain)):
                got = found[step.sources[0]]
                np.testing.assert_allclose(got.lower[n].flatten(), wanted.z[k][0], rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(got.upper[n].flatten(), wanted.z[k][1], rtol=1e-9, atol=1e-9)


def true_minimum(layers: list[Layer], rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """min of rows . z_K over the box, exactly: the relus' big-M encoding, solved as a mixed-integer program."""
    known = Reference(layers, low, high).run(crown=False)
    sizes = [len(low), *(len(b) for _, b in layers[:-1])]
    a_at = np.concatenate([[0], np.cumsum(sizes)])
    total = a_at[-1] + sum(sizes[1:])
    p_at = a_at[-1] + np.concatenate([[0], np.cumsum(sizes[1:])])
    constraints, lower, upper = [], np.zeros(total), np.ones(total)
    lower[: len(low)], upper[: len(low)] = low, high
    for k, (weights, bias) in enumerate(layers[:-1], 1):
        size, (z_low, z_high) = sizes[k], known.z[k]
        a, p = slice(a_at[k], a_at[k + 1]), slice(p_at[k - 1], p_at[k])
        upper[a] = np.maximum(z_high, 0)
        above, below, off = (np.zeros((size, total)) for _ in range(3))
        above[:, a] = below[:, a] = off[:, a] = np.eye(size)
        for j, w in weights.items():
            above[:, a_at[j] : a_at[j + 1]] -= w
            below[:, a_at[j] : a_at[j + 1]] -= w
        below[:, p] = np.diag(-np.minimum(z_low, 0))
        off[:, p] = np.diag(-np.maximum(z_high, 0))
        constraints += [LinearConstraint(above, bias, np.inf),
                        LinearConstraint(below, -np.inf, bias - np.minimum(z_low, 0)),
                        LinearConstraint(off, -np.inf, 0)]  # fmt: skip
    objective = np.zeros(total)
    weights, bias = layers[-1]
    for j, w in weights.items():
        objective[a_at[j] : a_at[j + 1]] += rows @ w
    whole = np.concatenate([np.zeros(a_at[-1]), np.ones(total - a_at[-1])])
    solved = milp(objective, constraints=constraints, integrality=whole, bounds=Bounds(lower, upper))
    assert solved.success, solved.message
    return float(solved.fun + rows @ bias)


def test_below_the_true_minimum_and_ordered():
    """interval <= CROWN on average, every bound <= the exact minimum, and trained slopes stay below it too."""
    gaps = []
    for seed in range(6):
        torch.manual_seed(seed)
        net, layers, shape = mlp()
        x = torch.randn(1, *shape, dtype=torch.float64)
        box = Interval(x - 0.4, x + 0.4)
        program = read(net, x)
        rows = torch.randn(1, 1, 4, dtype=torch.float64)
        bounds = crown_bounds(program, box)
        interval = lowest(
            program, program.output, rows, interval_bounds(program, box), ends="interval"
        ).item()
        crown = lowest(program, program.output, rows, bounds).item()
        relus = [step for step in program.steps if step.op == "aten.relu.default"]
        slopes = {
            s: torch.full((1, 1, *s.shape), 0.5, dtype=torch.float64, requires_grad=True) for s in relus
        }
        optimiser = torch.optim.Adam(slopes.values(), lr=0.1)
        for _ in range(40):
            optimiser.zero_grad()
            (-lowest(program, program.output, rows, bounds, slopes).sum()).backward()
            optimiser.step()
        alpha = lowest(program, program.output, rows, bounds, slopes).item()
        true = true_minimum(layers, rows[0, 0].numpy(), box.lower[0].numpy(), box.upper[0].numpy())
        assert max(interval, crown, alpha) <= true + 1e-7
        gaps.append((true - interval, true - crown, true - alpha))
    interval_gap, crown_gap, alpha_gap = np.mean(gaps, axis=0)
    assert crown_gap < 0.8 * interval_gap
    assert alpha_gap < crown_gap
