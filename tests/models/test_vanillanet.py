"""VanillaNet: the trained form against loops, the fused form against the trained one, and the published sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netwright.core.errors import BadInput
from netwright.core.network import parameter_count, seeded
from netwright.models import build
from netwright.models.vanillanet import VARIANTS, Convolution, Series, Slope


def shaken(network: nn.Module) -> nn.Module:
    """With weights, biases and batch statistics that all matter, and slopes of 1."""
    draw = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=draw))
        elif isinstance(module, nn.Conv2d):
            module.weight.data.copy_(0.3 * torch.randn(module.weight.shape, generator=draw))
            if module.bias is not None:
                module.bias.data.copy_(torch.randn(module.bias.shape, generator=draw))
        elif isinstance(module, Slope):
            module.slope.fill_(1.0)
    return network.eval()


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize(("shape", "series"), [((2, 64, 70), None), ((3, 9, 12), None), ((1, 8, 8), 0)])
def test_the_fused_network_is_the_same_function(deep, shape, series):
    network = shaken(build("vanillanet", shape, 5, dims=(6, 8, 10, 7), deep=deep, series=series)).double()
    x = torch.randn(3, *shape, dtype=torch.float64)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    fused = network.fuse()
    expected = network(x)
    assert expected.std() > 1e-3
    assert ((fused(x) - expected).abs() / expected.abs().max()).max() < 1e-12
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    kinds = {type(m) for m in fused.modules() if not list(m.children())}
    assert kinds <= {nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Dropout}
    full = [m for m in fused.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    assert len(full) == 5
    assert not fused.training


def test_it_fuses_at_a_slope_of_one_only():
    network = shaken(build("vanillanet", (1, 8, 8), 3, dims=(4, 4, 4, 4)))
    slopes = [m for m in network.modules() if isinstance(m, Slope)]
    assert len(slopes) == 5  # stem, three stages, classifier
    slopes[2].slope.fill_(0.999)
    with pytest.raises(BadInput, match=r"the slope is 0\.999 still"):
        network.fuse()


def test_a_pair_with_a_rectifier_between():
    pair = shaken(Convolution(nn.Conv2d(3, 5, 3, 2, 1), 4, deep=True)).double()
    pair.slope.slope.fill_(0.25)
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    norm = lambda m, y: F.batch_norm(y, m.running_mean, m.running_var, m.weight, m.bias, eps=1e-6)
    y = norm(pair.norm1, F.conv2d(x, pair.first.weight, pair.first.bias, 2, 1))
    y = F.leaky_relu(y, 0.25)
    expected = norm(pair.norm2, torch.einsum("om,nmhw->nohw", pair.second.weight[:, :, 0, 0], y)
                    + pair.second.bias[:, None, None])  # fmt: skip
    torch.testing.assert_close(pair(x), expected)


@pytest.mark.parametrize("n", [1, 3])
def test_the_series_activation_sums_shifted_rectifiers(n):
    layer = shaken(Series(2, n)).double()
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64)
    w, v = layer.near.weight.detach().numpy(), F.relu(x)[0].numpy()
    norm = {k: t.numpy() for k, t in layer.norm.state_dict().items()}
    expected = np.zeros((2, 6, 5))
    for c in range(2):
        for i in range(6):
            for j in range(5):
                for a in range(-n, n + 1):
                    for b in range(-n, n + 1):
                        if 0 <= i + a < 6 and 0 <= j + b < 5:
                            expected[c, i, j] += w[c, 0, a + n, b + n] * v[c, i + a, j + b]
        scale = norm["weight"][c] / np.sqrt(norm["running_var"][c] + 1e-6)
        expected[c] = (expected[c] - norm["running_mean"][c]) * scale + norm["bias"][c]
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected)


def test_the_published_sizes():
    """Millions of parameters of the fused networks (table 6 of the paper), for ImageNet."""
    for depth, millions in ((5, 15.5), (6, 32.5), (8, 37.1), (11, 50.0), (13, 58.6)):
        with torch.device("meta"):
            network = build("vanillanet", (3, 224, 224), 1000, depth=depth, deep=False)
        norms = sum(
            p.numel() for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()
        )
        assert (parameter_count(network) - norms) / 1e6 == pytest.approx(millions, rel=0.02)
    for depth, (dims, strides) in VARIANTS.items():
        assert len(strides) == depth - 2 == len(dims) - 1
        assert strides.count(2) == 3


def test_the_stem_follows_the_image_and_settings_are_checked():
    small, large = (build("vanillanet", (1, s, s), 2, dims=(4, 4, 4, 4)) for s in (63, 64))
    first = lambda network: next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    near = lambda network: next(m for m in network.modules() if isinstance(m, Series)).near
    assert (first(small).kernel_size, first(small).stride, near(small).kernel_size) == (
        (3, 3),
        (1, 1),
        (3, 3),
    )
    assert (first(large).kernel_size, first(large).stride, near(large).kernel_size) == (
        (4, 4),
        (4, 4),
        (7, 7),
    )
    with pytest.raises(BadInput, match="5 to 13"):
        build("vanillanet", (1, 8, 8), 2, depth=4)
    with pytest.raises(BadInput, match="dims are"):
        build("vanillanet", (1, 8, 8), 2, dims=(4, 4))
    with seeded(0):
        network = build("vanillanet", (1, 8, 8), 2, size=20_000)
    assert network.dims[1:] == tuple(network.dims[0] * k for k in (2, 4, 8))
