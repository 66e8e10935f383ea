"""VAN against float64 loops, its receptive field, its published size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from netwright.core.errors import NotApplicable
from netwright.core.network import parameter_count
from netwright.models import build
from netwright.models.van import LKA, VARIANTS, LKABlock, SpatialAttention


def convolve(x, weight, bias, stride=1, padding=0, dilation=1, groups=1):
    """The definition of convolution, in float64: (C, H, W) -> (O, H', W')."""
    outer, inner, k, _ = weight.shape
    _, height, width = x.shape
    rows = (height + 2 * padding - dilation * (k - 1) - 1) // stride + 1
    columns = (width + 2 * padding - dilation * (k - 1) - 1) // stride + 1
    out = np.zeros((outer, rows, columns))
    for o in range(outer):
        group = o // (outer // groups)
        for r in range(rows):
            for c in range(columns):
                total = bias[o]
                for i in range(inner):
                    for a in range(k):
                        for b in range(k):
                            y, z = r * stride - padding + a * dilation, c * stride - padding + b * dilation
                            if 0 <= y < height and 0 <= z < width:
                                total += weight[o, i, a, b] * x[group * inner + i, y, z]
                out[o, r, c] = total
    return out


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


class Weights:
    """A module's tensors as float64 arrays, by name."""

    def __init__(self, module):
        self.held = {k: v.detach().double().numpy() for k, v in module.state_dict().items()}

    def conv(self, name, x, **how):
        return convolve(x, self.held[f"{name}.weight"], self.held[f"{name}.bias"], **how)

    def norm(self, name, x):
        h = {
            k: self.held[f"{name}.{k}"][:, None, None]
            for k in ("weight", "bias", "running_mean", "running_var")
        }
        return (x - h["running_mean"]) / np.sqrt(h["running_var"] + 1e-5) * h["weight"] + h["bias"]


def lka(w, prefix, x, dim):
    near = w.conv(f"{prefix}near", x, padding=2, groups=dim)
    return x * w.conv(f"{prefix}mix", w.conv(f"{prefix}far", near, padding=9, dilation=3, groups=dim))


def attention(w, prefix, x, dim):
    return x + w.conv(f"{prefix}out", lka(w, f"{prefix}lka.", gelu(w.conv(f"{prefix}into", x)), dim))


def block(w, x, dim, hidden):
    x = x + w.held["scale1"] * attention(w, "attention.", w.norm("norm1", x), dim)
    feed = w.conv("feed.1", w.conv("feed.0", w.norm("norm2", x)), padding=1, groups=hidden)
    return x + w.held["scale2"] * w.conv("feed.3", gelu(feed))


@pytest.fixture
def x():
    return torch.randn(1, 3, 7, 6)


def shaken(module):
    """Random values everywhere, so that no part is hidden by a zero or a one."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.5 * torch.randn_like(p))
        for name, b in module.named_buffers():
            if b.is_floating_point():
                b.copy_(torch.rand_like(b) + (0.5 if "var" in name else 0.0))
    return module.eval()


def test_lka_is_its_definition(x):
    layer = shaken(LKA(3))
    assert (
        np.abs(layer(x)[0].detach().numpy() - lka(Weights(layer), "", x[0].double().numpy(), 3)).max() < 1e-4
    )


def test_the_attention_has_a_skip_of_its_own(x):
    layer = shaken(SpatialAttention(3))
    expected = attention(Weights(layer), "", x[0].double().numpy(), 3)
    assert np.abs(layer(x)[0].detach().numpy() - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_block_is_its_definition(x):
    layer = shaken(LKABlock(3, ratio=2))
    expected = block(Weights(layer), x[0].double().numpy(), 3, 6)
    assert np.abs(layer(x)[0].detach().numpy() - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_gate_sees_exactly_23_pixels():
    layer = LKA(2)
    x = torch.randn(1, 2, 41, 41, requires_grad=True)
    layer.gate(x)[0, :, 20, 20].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()[:, 0]
    columns = x.grad.abs().sum((0, 1, 2)).nonzero()[:, 0]
    assert (int(rows.min()), int(rows.max())) == (9, 31)
    assert (int(columns.min()), int(columns.max())) == (9, 31)


@pytest.mark.parametrize(("variant", "millions"), [("b0", 4.1), ("b1", 13.9), ("b2", 26.6), ("b3", 44.8)])
def test_the_published_sizes(variant, millions):
    dims, depths = VARIANTS[variant]
    with torch.device("meta"):
        network = build("van", (3, 224, 224), 1000, dims=dims, depths=depths)
    assert round(parameter_count(network) / 1e6, 1) == millions


def test_the_larger_variants_differ_in_depth_alone():
    assert {VARIANTS[name][0] for name in ("b1", "b2", "b3")} == {(64, 128, 320, 512)}


@pytest.mark.parametrize(
    ("side", "stem", "kernel", "stride"),
    [(224, None, 7, 4), (28, None, 3, 2), (8, None, 3, 1), (32, 4, 7, 4)],
)
def test_the_first_convolution_follows_the_size_of_the_image(side, stem, kernel, stride):
    with torch.device("meta"):
        network = build("van", (3, side, side), 10, stem=stem)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert (convolutions[0].kernel_size, convolutions[0].stride) == ((kernel, kernel), (stride, stride))


@pytest.mark.parametrize("shape", [(3, 7, 7), (3, 8, 4), (3, 4, 8), (64,)])
def test_what_is_no_image_or_too_small_a_one_is_refused(shape):
    with pytest.raises(NotApplicable, match="van"):
        build("van", shape, 10)


def test_convolutions_begin_as_he_has_it_by_what_leaves_each_group():
    network = build("van", (3, 32, 32), 10, size=100_000)
    drawn = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 1000]
    assert {m.groups > 1 for m in drawn} == {True, False}
    for layer in drawn:
        leaving = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1] / layer.groups
        assert layer.weight.std().item() == pytest.approx((2 / leaving) ** 0.5, rel=0.1)
        assert not layer.bias.any()


def test_small_images_keep_a_map_and_lose_the_last_stage():
    for side, expected in ((8, 2), (28, 4), (32, 4), (64, 2), (224, 7)):
        with torch.device("meta"):
            network = build("van", (3, side, side), 10)
            assert network.stages(torch.zeros(1, 3, side, side)).shape[2:] == (expected, expected)
        assert len(network.stages) == (4 if side >= 64 else 3)


def test_drop_path_rises_to_its_rate_and_keeps_the_mean():
    network = build("van", (3, 32, 32), 10, size=30_000)
    rates = [m.drop for m in network.modules() if isinstance(m, LKABlock)]
    assert rates == pytest.approx([0.1 * i / 10 for i in range(11)])
    layer = shaken(LKABlock(2, drop=0.5)).train()
    for norm in (layer.norm1, layer.norm2):
        norm.eval()
    x = torch.randn(1, 2, 5, 5).expand(4000, 2, 5, 5)
    with torch.no_grad():
        layer.scale2.zero_()  # one branch, so that the expectation is exact
        branch = layer(x) - x
        kept = layer.eval()(x[:1]) - x[:1]
    dropped = branch.flatten(1).abs().amax(1) == 0
    assert 0.45 < dropped.float().mean() < 0.55
    assert torch.allclose(branch[~dropped][0], 2 * kept[0], atol=1e-5)
    assert torch.allclose(branch.mean(0), kept[0], atol=0.1 * kept.abs().max())
