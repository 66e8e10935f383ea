"""Layers of signs: words against floats to the bit, thresholds, bytes, files."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from netwright.core.files.export import export
from netwright.core.files.load import load
from netwright.core.files.proof import TOLERANCE_QUANTISED, _runner
from netwright.core.measure.cost import stored_bytes
from netwright.core.weights import xnor
from netwright.core.weights.binary import BinaryConv, BinaryLinear


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conv(shape: tuple[int, ...], bias: bool = True, **how: tuple[int, ...]) -> BinaryConv:
    out, into = shape[:2]
    return BinaryConv(
        draw(*shape), 0.3 * draw(into, seed=1), draw(out, seed=2), draw(out, seed=3) if bias else None, **how
    )


# channels below, at and above a word; borders on one side and on both; taps in nines and left over; odd outputs
CONVOLUTIONS = [
    (conv((5, 3, 3, 3), padding=(1, 1)), (2, 3, 7, 9)),
    (conv((8, 70, 3, 3), stride=(2, 2), padding=(1, 1)), (3, 70, 8, 8)),
    (conv((7, 130, 1, 1), bias=False, stride=(2, 1)), (1, 130, 5, 6)),
    (conv((4, 64, 5, 3), stride=(1, 2), padding=(2, 3), dilation=(2, 1)), (2, 64, 11, 12)),
    (conv((3, 2, 3, 3), padding=(3, 3)), (1, 2, 2, 1)),
    (conv((66, 64, 3, 3), padding=(1, 1)), (1, 64, 40, 33)),  # several tiles
    (conv((4, 6, 3), stride=(2,), padding=(1,), dilation=(1,)), (3, 6, 17)),
]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda v: str(getattr(v, "shape", v)))
def test_words_give_what_floats_give_to_the_bit(layer, shape):
    x = draw(*shape, seed=4)
    signs = np.where(x.numpy() >= layer.threshold.view(-1, *[1] * (x.dim() - 2)).numpy(), 1.0, -1.0)
    plain = nn.functional.conv1d if x.dim() == 3 else nn.functional.conv2d
    sums = plain(
        torch.from_numpy(signs), layer.weight().double(), None, layer.stride, layer.padding, layer.dilation
    )
    assert torch.equal(layer.sums(x).double(), sums)
    assert xnor.serves(x)
    assert torch.equal(layer(x), layer.finished(sums.float()))
    x.requires_grad_()
    assert not xnor.serves(x)
    assert torch.equal(layer(x), layer.finished(sums.float()))


@pytest.mark.parametrize("inputs", [5, 64, 100, 200])
def test_a_linear_layer_in_words_is_that_of_floats(inputs):
    layer = BinaryLinear(draw(33, inputs), draw(inputs, seed=1), draw(33, seed=2), draw(33, seed=3))
    x = draw(4, 3, inputs, seed=4)
    expected = layer.signs(x).double() @ layer.weight().double().t()
    assert torch.equal(layer.sums(x).double(), expected)
    assert torch.equal(layer(x), layer.finished(expected.float()))


def test_a_threshold_that_is_met_is_positive_and_a_weight_of_zero_too():
    layer = BinaryLinear(
        torch.tensor([[0.0, -1.0, 2.0]]), torch.tensor([0.5, -torch.inf, torch.inf]), torch.ones(1)
    )
    assert layer.weight().tolist() == [[1, -1, 1]]
    for x in (torch.tensor([[0.5, 0.0, 0.0]]), torch.tensor([[0.4999, 0.0, 0.0]])):
        first = 1 if x[0, 0] == 0.5 else -1
        assert layer(x).tolist() == layer.finished(layer.sums(x)).tolist() == [[first - 1 - 1]]


def test_a_bit_for_each_weight_and_copies_that_are_equal():
    layer, x = conv((6, 10, 3, 3), padding=(1, 1)), draw(2, 10, 5, 5)
    assert layer.nbytes == stored_bytes(layer) == -(-6 * 10 * 9 // 8) + 4 * (10 + 6 + 6)
    expected = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), expected)
    other = conv((6, 10, 3, 3), padding=(1, 1))
    other(x)
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    state["codes"] ^= 255  # every weight turned over: what was made from the old ones must go
    other.load_state_dict(state)
    bias = layer.bias.view(-1, 1, 1)
    torch.testing.assert_close(other(x) - bias, bias - expected)


def test_what_it_costs_is_what_the_float_layer_costs():
    layer, x = conv((6, 10, 3, 3), stride=(2, 2), padding=(1, 1)), draw(2, 10, 6, 8)
    linear, rows = BinaryLinear(draw(7, 12), draw(12), draw(7)), draw(5, 12)
    for run, macs in ((lambda: layer(x), 2 * 6 * 10 * 9 * 3 * 4), (lambda: linear(rows), 5 * 7 * 12)):
        with FlopCounterMode(display=False) as counter:
            run()
        assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_files_hold_bits_and_load_back_equal(suffix, tmp_path):
    network = nn.Sequential(
        conv((64, 64, 3, 3), padding=(1, 1)), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        BinaryLinear(draw(5, 64), draw(64, seed=1), draw(5, seed=2)),
    )  # fmt: skip
    x = draw(4, 64, 6, 6)
    written = export(network.eval(), (x[:2],), tmp_path / f"signs{suffix}")
    assert written.dynamic_batch
    if suffix == ".onnx":
        assert written.bytes < 64 * 64 * 9 * 4 / 8
    assert torch.equal(load(written.path)(x), network(x))
    assert (
        _runner(written.path)[1] == TOLERANCE_QUANTISED
    )  # a sign that falls the other way is no other network
