"""Signs and their stand-in gradients, against the functions whose slopes they are."""

import math

import pytest
import torch

from netwright.core.weights.signs import Sines, clipped, quadratic, sign, straight

X = torch.tensor([-2.5, -1.0, -0.6, -1e-6, 0.0, 0.3, 1.0, 1.5], dtype=torch.float64)


def slope_of(function, x):
    x = x.clone().requires_grad_()
    function(x).sum().backward()
    return x.grad


def parabolas(x):
    return torch.where(x < 0, 2 * x + x**2, 2 * x - x**2)


def series(n, omega):
    return lambda x: 4 / math.pi * sum(((2 * i + 1) * omega * x).sin() / (2 * i + 1) for i in range(n + 1))


@pytest.mark.parametrize(
    "slope", [straight, clipped, quadratic, Sines()], ids=lambda slope: getattr(slope, "__name__", str(slope))
)
def test_zero_is_positive_and_the_gradient_is_multiplied_by_the_slope(slope):
    x = X.clone().requires_grad_()
    y = sign(x, slope)
    assert y.tolist() == [-1, -1, -1, -1, 1, 1, 1, 1]
    (y * torch.arange(8.0)).sum().backward()
    assert torch.equal(x.grad, torch.arange(8.0) * slope(X))


def test_slopes_are_those_of_the_functions_that_they_come_from():
    inside = X.abs() <= 1
    assert straight(X).tolist() == [1] * 8
    assert torch.equal(clipped(X), inside.double())
    torch.testing.assert_close(quadratic(X), slope_of(parabolas, X) * inside)
    for n, omega in ((0, 0.1), (9, 0.1), (18, 0.3)):
        torch.testing.assert_close(Sines(n, omega)(X), slope_of(series(n, omega), X) * inside)
