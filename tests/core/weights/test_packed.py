"""Packed layers against integer arithmetic done by hand, and ONNX Runtime's kernels."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netwright.core.measure.cost import cost
from netwright.core.weights.grids import Uniform
from netwright.core.weights.packed import (
    DynamicLinear,
    PackedConv,
    PackedEmbedding,
    PackedLinear,
    PackedWeight,
    Rounding,
    dynamic_linear,
)  # fmt: skip
from netwright.core.weights.parametrise import Quantiser


def twin(*shape: int):
    return Quantiser(Uniform(8)).to_integer(torch.randn(*shape))


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_convolution_equals_integer_arithmetic(groups: int) -> None:
    codes, shape, bias = twin(8, 8 // groups, 3, 3), torch.Size((8, 8 // groups, 3, 3)), torch.randn(8)
    layer = PackedConv(codes, shape, bias, ([2, 2], [1, 1], [1, 1], groups))
    scale, zero = 0.03, 120
    layer.pack_bias(scale)
    x = torch.randint(0, 256, (2, 8, 9, 9))
    total = F.conv2d((x - zero).double(), layer.weight.double(), layer.bias.double(), 2, 1, 1, groups)
    expected = total * (layer.scale.double() * scale).view(1, -1, 1, 1)
    found = layer(((x - zero) * scale).float())
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert layer.weight.dtype == torch.int8
    assert layer.bias.dtype == torch.int32
    assert ((layer.float_bias() - bias).abs() <= layer.bias_scale / 2 + 1e-7).all()


def test_linear_equals_integer_arithmetic_in_any_number_of_dimensions() -> None:
    codes, bias = twin(6, 10), torch.randn(6)
    layer = PackedLinear(codes, torch.Size((6, 10)), bias)
    x = torch.randn(4, 3, 10)
    dense = F.linear(x, codes.values(), bias)
    assert torch.allclose(layer(x), dense, atol=1e-5)
    assert torch.allclose(layer(x[:, 0]), dense[:, 0], atol=1e-5)


def test_a_dead_channel_keeps_its_bias() -> None:
    weight = torch.randn(3, 4)
    weight[1] = 0
    weight[2] *= 1e-12
    layer = PackedLinear(
        Quantiser(Uniform(8)).to_integer(weight), weight.shape, torch.tensor([1.0, 2.0, 3.0])
    )
    layer.pack_bias(0.02)
    assert torch.allclose(layer.float_bias(), torch.tensor([1.0, 2.0, 3.0]), atol=1e-3)


def test_dynamic_linear_equals_integers_by_hand() -> None:
    x, codes = torch.randn(5, 40) * 3 + 1, twin(7, 40)
    scale = (max(x.max().item(), 0) - min(x.min().item(), 0)) / 255
    zero = round(-min(x.min().item(), 0) / scale)
    integers = ((x / scale).round() + zero).clamp(0, 255).long() - zero
    expected = (integers @ codes.codes.long().t()).float() * (scale * codes.scale[:, 0])
    assert torch.allclose(
        dynamic_linear(x, codes.codes.to(torch.int8), codes.scale[:, 0]), expected, atol=1e-4
    )
    assert torch.equal(
        dynamic_linear(torch.zeros(2, 40), codes.codes.to(torch.int8), codes.scale[:, 0]), torch.zeros(2, 7)
    )


def test_long_sums_stay_exact() -> None:
    x = torch.full((1, 2000), 255.0)
    x[0, 0] = -0.0
    weight = torch.full((1, 2000), 127, dtype=torch.int8)
    found = dynamic_linear(x, weight, torch.ones(1))
    # beyond 2^24 float32 would add up rounding errors; the one rounding at the end is right
    assert found.item() == torch.tensor(255 * 127 * 1999, dtype=torch.float64).float().item()


def test_gradients_go_straight_through_inside_the_grid() -> None:
    x = torch.tensor([-5.0, 0.1, 0.26, 9.0], requires_grad=True)
    y = Rounding(0.02, 50)(x)
    assert torch.allclose(y, torch.tensor([-1.0, 0.1, 0.26, 4.1]))
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]
    codes, x = twin(3, 4), torch.randn(2, 4, requires_grad=True)
    DynamicLinear(codes, torch.Size((3, 4)), None)(x).sum().backward()
    assert torch.allclose(x.grad, codes.values().sum(0).expand(2, 4))


def test_embedding_and_weight() -> None:
    codes = twin(30, 8)
    index = torch.randint(0, 30, (2, 5))
    assert torch.allclose(PackedEmbedding(codes, torch.Size((30, 8)), None)(index), codes.values()[index])
    assert torch.allclose(PackedWeight(codes, torch.Size((30, 8)), None)(), codes.values())


def test_counts_copies_and_pickles() -> None:
    net = nn.Sequential(DynamicLinear(twin(20, 30), torch.Size((20, 30)), torch.randn(20)), Rounding(0.1, 3))
    x = torch.randn(2, 30)
    found = cost(net, x)
    assert (found.parameters, found.macs) == (620, 600)
    assert found.bytes == 600 + 20 * 4 + 20 * 4
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), net(x))
