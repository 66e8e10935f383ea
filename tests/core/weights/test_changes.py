"""Layers that follow changes, against the same layers computed anew, and what one input takes part in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netwright.core.graph.trace import trace
from netwright.core.weights.changes import layers

LAYERS = {
    "plain": (lambda: nn.Conv2d(5, 6, 3), (5, 7, 8)),
    "padded, strided": (lambda: nn.Conv2d(5, 7, (3, 5), (2, 3), (1, 2)), (5, 8, 9)),
    "dilated": (lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=(2, 1), bias=False), (4, 9, 6)),
    "grouped": (lambda: nn.Conv2d(12, 6, 3, padding=1, groups=2), (12, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(6, 12, 3, 2, 1, groups=6), (6, 6, 7)),
    "same": (lambda: nn.Conv2d(3, 4, (3, 5), padding="same", dilation=2), (3, 7, 9)),
    "valid": (lambda: nn.Conv2d(3, 4, 3, padding="valid"), (3, 6, 6)),
    "linear": (lambda: nn.Linear(11, 5), (11,)),
    "linear, of rows": (lambda: nn.Linear(6, 9, bias=False), (4, 6)),
}


def followed(name: str, dtype: torch.dtype):
    torch.manual_seed(len(name))
    make, shape = LAYERS[name]
    layer = make().to(dtype)
    x = torch.randn(1, *shape, dtype=dtype)
    (found,) = layers(trace(layer, x)).values()
    return layer, found, x


@pytest.mark.parametrize("name", LAYERS)
def test_what_changes_is_added_exactly(name):
    layer, found, x = followed(name, torch.float64)
    for share in (0.0, 0.1, 0.5, 1.0):
        x = torch.where(torch.rand(x.shape) < share, torch.randn_like(x), x)
        with torch.inference_mode():
            made = found(x, dense_above=1.0)
        torch.testing.assert_close(made, layer(x), atol=1e-12, rtol=1e-12)
        with torch.inference_mode():
            made += 1.0  # what is handed out is not what is kept


def test_what_does_not_change_is_not_read():
    _, found, x = followed("padded, strided", torch.float64)
    found(x, 1.0)
    found.taps.fill_(torch.nan)  # what is read can be seen
    assert not found(x, 1.0).isnan().any()
    x = x.clone()
    x[0, 2, 3, 4] += 1
    assert 0 < found(x, 1.0).isnan().sum() <= found.fan_out(8, 9)[3, 4]


def test_too_many_changes_are_computed_anew_and_so_is_another_size():
    layer, found, x = followed("plain", torch.float64)
    found(x, 0.5)
    found.taps.fill_(torch.nan)
    for new in (torch.randn_like(x), torch.randn(1, 5, 9, 6, dtype=x.dtype)):
        torch.testing.assert_close(found(new, 0.5), layer(new))
    kept = new.clone()
    kept[0, :2] += 1
    assert found(kept, 0.5).isnan().any()  # 2 of 5 channels: followed
    found.reset()
    torch.testing.assert_close(found(kept, 0.5), layer(kept))


@pytest.mark.parametrize(("name", "pays"), [("plain", 0.04), ("linear", 0.25)])
def test_without_a_limit_it_is_what_pays(name, pays):
    _, found, x = followed(name, torch.float64)
    found(x)
    for count, anew in ((int(pays * x.numel()), False), (int(pays * x.numel()) + 1, True)):
        x = x.clone()
        x.view(-1)[:count] += 1
        found.taps.fill_(torch.nan)
        assert found(x).isnan().any() != anew
        found.reset()
        found(x)


@pytest.mark.parametrize("name", LAYERS)
def test_what_an_input_takes_part_in(name):
    layer, found, x = followed(name, torch.float64)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    x.requires_grad_()
    layer(x).sum().backward()  # each product counts 1
    maps = found.maps(x.grad)[0]
    expected = found.fan_out(*maps.shape[:2])
    assert torch.equal(maps, expected[..., None].expand_as(maps).double())


def test_layers_that_cannot_be_followed_are_left_out():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Linear(4, 4)
            self.line, self.free = nn.Conv1d(4, 4, 1), nn.Linear(4, 4)

        def forward(self, x):
            y = self.line(x)
            return torch.nn.functional.linear(y, self.scale(x)[0]) + self.free(y)

    graph = trace(Odd(), torch.randn(2, 4, 4))
    assert len(layers(graph)) == 2


def test_sides_that_are_padded_differently_are_left_out():
    conv = nn.Conv2d(2, 2, 2, padding="same")
    assert not layers(trace(conv, torch.randn(2, 2, 5, 5)))


def test_float32_is_followed_too():
    layer, found, x = followed("grouped", torch.float32)
    for _ in range(3):
        x = torch.where(torch.rand(x.shape) < 0.2, torch.randn_like(x), x)
        torch.testing.assert_close(found(x, 1.0), layer(x))
