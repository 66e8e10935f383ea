from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput, NotApplicable
from netwright.explain.grad_cam_plus_plus import GradCamPlusPlus
from netwright.explain.parts.cam import draw
from netwright.explain.smooth_gradcampp import SmoothGradCamPlusPlus


@pytest.mark.parametrize("samples", [1, 3])
def test_without_noise_is_grad_cam_plus_plus(deep, pictures, samples) -> None:
    plain = GradCamPlusPlus(steps=0)(deep, pictures).attribution
    smooth = SmoothGradCamPlusPlus(samples=samples, sigma=0.0, steps=0)(deep, pictures).attribution
    assert torch.allclose(plain, smooth, atol=1e-6)


def by_definition(network, x: Tensor, target: int, copies: Tensor) -> Tensor:
    """The map of one example, loop by loop, from its formulas; `network` ends its maps at module 4."""
    head, tail = network[:5], lambda a: network[8](network[6](a.flatten(1)).relu())
    a = head(x[None])[0].detach()
    d = torch.zeros(3, *a.shape, dtype=torch.float64)
    for copy in copies:
        noisy = head(copy[None]).detach().requires_grad_(True)
        s = tail(noisy)[0, target]
        (g,) = torch.autograd.grad(s, noisy)
        for power in range(3):
            d[power] += (s.exp() * g[0] ** (power + 1)).detach() / len(copies)
    heat = torch.zeros(a.shape[1:], dtype=torch.float64)
    for k in range(a.shape[0]):
        weight = 0.0
        for i in range(a.shape[1]):
            for j in range(a.shape[2]):
                denominator = 2 * d[1, k, i, j] + a[k].sum() * d[2, k, i, j]
                alpha = d[1, k, i, j] / denominator if denominator != 0 else 0.0
                weight += alpha * max(d[0, k, i, j], 0.0)
        heat += weight * a[k]
    return heat.relu()


def test_equals_the_definition(deep, pictures) -> None:
    network, x = deep.double(), pictures.double()
    # the method draws single-precision noise, copy by copy
    generator = torch.Generator().manual_seed(3)
    copies = [x + 0.3 * torch.randn(x.shape, generator=generator).double() for _ in range(4)]
    target = torch.tensor([0, 1, 2, 3, 1])
    expected = torch.stack(
        [by_definition(network, x[b], int(target[b]), torch.stack([c[b] for c in copies])) for b in range(5)]
    )
    found = SmoothGradCamPlusPlus(steps=0, seed=3)(network, x, target)
    assert torch.allclose(found.attribution, draw(expected, x), atol=1e-5)


def test_it_is_no_mean_of_finished_maps(deep, pictures) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [
        GradCamPlusPlus(steps=0)(
            deep, pictures + 0.3 * torch.randn(pictures.shape, generator=generator), torch.zeros(5)
        ).attribution
        for _ in range(4)
    ]
    found = SmoothGradCamPlusPlus(steps=0)(deep, pictures, torch.zeros(5)).attribution
    assert (found - draw(torch.stack(maps).mean(0), pictures)).abs().max() > 0.05


def test_scores_of_any_size_stay_finite(deep, pictures) -> None:
    with torch.no_grad():
        deep[8].weight.mul_(1e4)
    found = SmoothGradCamPlusPlus(steps=0)(deep, pictures).attribution
    assert bool(torch.isfinite(found).all())
    assert float(found.amax()) > 0.5


def test_behind_global_averaging_there_is_nothing_to_smooth(cam, pictures) -> None:
    smooth = SmoothGradCamPlusPlus(steps=0, layer="relu")(cam, pictures).attribution
    assert torch.allclose(
        smooth, GradCamPlusPlus(steps=0, layer="relu")(cam, pictures).attribution, atol=1e-6
    )
    noisy = SmoothGradCamPlusPlus(steps=0, layer="conv")(cam, pictures).attribution
    assert (noisy - GradCamPlusPlus(steps=0, layer="conv")(cam, pictures).attribution).abs().max() > 0.01


def test_same_seed_same_map(deep, pictures) -> None:
    one, two, other = (SmoothGradCamPlusPlus(steps=0, seed=s)(deep, pictures) for s in (0, 0, 1))
    assert torch.equal(one.attribution, two.attribution)
    assert not torch.equal(one.attribution, other.attribution)


def test_channels_restrict_the_sum(deep, pictures) -> None:
    target = torch.zeros(5)
    every = tuple(range(7))
    whole = SmoothGradCamPlusPlus(steps=0)(deep, pictures, target).attribution
    assert torch.equal(
        SmoothGradCamPlusPlus(steps=0, channels=every)(deep, pictures, target).attribution, whole
    )
    for k in every:
        heat = deep[:5](pictures)[:, k].detach()
        found = SmoothGradCamPlusPlus(steps=0, channels=(k,))(deep, pictures, target).attribution
        # a map of one channel has that channel's shape, or is nothing where its weight is 0
        drawn = draw(heat.double(), pictures)
        assert all(
            torch.allclose(f, d, atol=1e-5) or f.amax() == 0 for f, d in zip(found, drawn, strict=True)
        )


def test_window_masks_the_map(deep, pictures) -> None:
    found = SmoothGradCamPlusPlus(steps=0, window=(0, 0, 2, 3))(deep, pictures).attribution
    assert found[:, 6:].abs().max() == 0
    assert found[:, :, 8:].abs().max() == 0
    assert found.abs().max() > 0


def test_refusals(deep, pictures) -> None:
    with pytest.raises(BadInput, match="channels"):
        SmoothGradCamPlusPlus(channels=(9,))(deep, pictures)
    with pytest.raises(BadInput, match="window"):
        SmoothGradCamPlusPlus(window=(0, 0, 9, 9))(deep, pictures)
    with pytest.raises(BadInput, match="sample"):
        SmoothGradCamPlusPlus(samples=0)(deep, pictures)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.conv, self.fc = nn.Embedding(9, 4), nn.Conv2d(1, 3, 3), nn.Linear(3, 2)

        def forward(self, t: Tensor) -> Tensor:
            return self.fc(self.conv(self.embed(t)[:, None]).mean((2, 3)))

    tokens = torch.randint(0, 9, (3, 8))
    with pytest.raises(NotApplicable, match="no floating input"):
        SmoothGradCamPlusPlus()(Tokens(), tokens)
    # without a picture the map stays as large as the layer's
    assert GradCamPlusPlus()(Tokens(), tokens).attribution.shape == (3, 6, 2)
