"""What an operator's arguments do to it: covered, or refused; never taken for the operator's usual form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.budget import Budget
from netwright.core.contracts import Box
from netwright.core.errors import NotApplicable
from netwright.verify.parts.bounds import Interval, crown_bounds, interval_bounds, read
from netwright.verify.parts.certify import Certify, margin_bound


class Of(nn.Module):
    """Outputs (x_0 - 0.4, 0) of what a function makes of x (B, 1)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.last = nn.Linear(1, 2)
        with torch.no_grad():
            self.last.weight.copy_(torch.tensor([[1.0], [0.0]]))
            self.last.bias.copy_(torch.tensor([-0.4, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(x))


BOX = Box(torch.tensor([[0.9]]), torch.tensor([[1.8]]), torch.tensor([0]))
ROUNDING = {
    "int32": lambda x: x.to(torch.int32).to(torch.float32),
    "int64": lambda x: x.long() * 1.0,
    "bool": lambda x: x.bool().float(),
    "half": lambda x: x.half().float(),
    "bfloat16": lambda x: x.bfloat16() + 0.0 * x,
    "sum in whole numbers": lambda x: x.sum(1, keepdim=True, dtype=torch.int32).float(),
    "mean in half precision": lambda x: x.mean(1, keepdim=True, dtype=torch.float16).float(),
}


@pytest.mark.parametrize("name", ROUNDING)
@pytest.mark.parametrize("bound", ["interval", "crown-ibp", "crown"])
def test_a_cast_that_rounds_is_refused(name, bound):
    """At 0.9 the whole number is 0 and the label loses; taken for the identity it would win by 0.5 everywhere."""
    net = Of(ROUNDING[name])
    if name in ("int32", "int64"):
        assert net(BOX.lower)[0].argmax().item() == 1
    with pytest.raises(NotApplicable, match=r"_to_copy|sum|mean"):
        Certify(bound, pgd_steps=0)(net, BOX, Budget())


@pytest.mark.parametrize("bound", ["interval", "crown-ibp", "crown"])
def test_a_cast_between_real_types_is_the_identity(bound):
    for function in (lambda x: x.double().float(), lambda x: x.to(torch.float32), lambda x: x.to(x.device)):
        verdict = Certify(bound, pgd_steps=0)(Of(function), BOX, Budget())
        assert verdict.answers == ["holds"]
        assert verdict.margin.item() == pytest.approx(0.5, abs=1e-5)
        assert verdict.margin.item() <= 0.5


def test_a_network_in_half_precision_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).bfloat16()
    with pytest.raises(NotApplicable, match="bfloat16"):
        read(net, torch.randn(1, 4).bfloat16(), dtype=torch.float64)


class Negated(nn.Module):
    """bias - 2 x W, by the arguments of addmm."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight, alpha=self.alpha, beta=self.beta)


@torch.no_grad()
@pytest.mark.parametrize(("alpha", "beta"), [(-2.0, 1.0), (0.5, -3.0), (0.0, 1.0)])
def test_addmm_with_factors(alpha, beta):
    net = Negated(alpha, beta).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    found = interval_bounds(read(net, x), Interval(x - 0.3, x + 0.3))
    low, high = next(reversed(found.values()))
    spread = abs(alpha) * 0.3 * net.weight.abs().sum(0)
    torch.testing.assert_close(low.reshape(3, 3), net(x) - spread, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(high.reshape(3, 3), net(x) + spread, rtol=1e-10, atol=1e-10)


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


TURNED = {
    "avg_pool2d with a negative divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=-4),
    "clamp with its limits crossed": lambda x: x.clamp(5, 1),
    "clamp with a limit that is no number": lambda x: x.clamp(max=float("nan")),
    "noise that is added": lambda x: x + torch.randn(4),
    "noise that multiplies": lambda x: x * F.dropout(torch.ones(4), 0.5, training=True),
}


@pytest.mark.parametrize("name", TURNED)
def test_arguments_that_turn_an_operator_round_are_refused(name):
    with pytest.raises(NotApplicable, match="node '"):
        read(Function(TURNED[name]), torch.randn(1, 2, 4, 4))


FIXED, WEIGHT = torch.randn(1, 4), torch.randn(4, 4)
ELSEWHERE = {
    "a bias": lambda x: torch.addmm(x, FIXED, WEIGHT),
    "a bias of a convolution": lambda x: F.conv1d(torch.ones(1, 4, 4), torch.ones(4, 4, 1), x[0]),
    "a bias and the data": lambda x: torch.addmm(x, x, WEIGHT),
    "a weight": lambda x: torch.mm(FIXED, x.reshape(4, 1).expand(4, 4)),
    "a divisor": lambda x: FIXED / x,
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_product_whose_other_arguments_vary_is_refused(name):
    """Its row bounds what the data do: a bias that varies would be taken for a fixed one."""
    with pytest.raises(NotApplicable, match="node '"):
        read(Function(ELSEWHERE[name]), torch.randn(1, 4))


@torch.no_grad()
def test_the_same_operators_in_their_usual_form_are_served():
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    for function in (lambda x: F.avg_pool2d(x, 2, divisor_override=3), lambda x: x.clamp(-0.5, -0.5)):
        net = Function(function)
        low, high = next(reversed(crown_bounds(read(net, x), Interval(x - 0.1, x + 0.1)).values()))
        assert bool((low <= net(x)).all())
        assert bool((high >= net(x)).all())


@torch.no_grad()
def test_what_does_not_depend_on_the_input_is_computed_in_the_networks_own_types():
    """Ten times the float32 nearest to 0.7 is 7 in float32; in float64 it is a little below, its floor 6."""
    weight = torch.tensor(0.7)
    assert torch.floor(weight * 10) == 7
    assert torch.floor(weight.double() * 10) == 6
    net = Function(lambda x: x * torch.floor(weight * 10))
    x = torch.ones(1, 2)
    low, high = next(reversed(interval_bounds(read(net, x, torch.float64), Interval(x, x)).values()))
    torch.testing.assert_close(low, torch.full((1, 1, 2), 7.0, dtype=torch.float64))
    assert high.dtype == torch.float64


class Overflows(nn.Module):
    """Outputs (1, relu(h - h')) where h and h' overflow float64: what they are is not known, not 'negative'."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 2), nn.Linear(1, 2)
        with torch.no_grad():
            for part, weight, bias in (
                (self.first, [[1e200], [1e200]], [0.0, 0.0]),
                (self.last, [[0.0], [1.0]], [1.0, 0.0]),
            ):
                part.weight.copy_(torch.tensor(weight))
                part.bias.copy_(torch.tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        h = 1e200 * self.first(x)
        return self.last(torch.relu(h[:, :1] - 0.5 * h[:, 1:]))


@pytest.mark.parametrize("bound", ["interval", "crown-ibp", "crown"])
def test_overflow_certifies_nothing(bound):
    net = Overflows().double()
    x = torch.tensor([[0.75]], dtype=torch.float64)
    box = Box(x - 0.25, x + 0.25, torch.tensor([0]))
    with torch.no_grad():
        least = margin_bound(read(net, x), box, bound)
    assert not bool((least > -torch.inf).any())
