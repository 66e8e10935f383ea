from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn

from netwright.core.errors import BadInput, NotApplicable, UnknownName
from netwright.explain.grad_cam import GradCam
from netwright.explain.parts.cam import draw, look, spatial_places


def scaled(heat: Tensor) -> Tensor:
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    return torch.nan_to_num((heat - low) / (high - low))


def enlarged(heat: Tensor) -> Tensor:
    return F.interpolate(heat[:, None], size=(12, 12), mode="bilinear")[:, 0]


def test_is_cam_where_cam_is_defined(cam, pictures) -> None:
    target = torch.tensor([0, 1, 2, 3, 0])
    found = GradCam(steps=0)(cam, pictures, target)
    maps = cam.relu(cam.conv(pictures))
    expected = torch.einsum("bkhw,bk->bhw", maps, cam.fc.weight[target]).relu()
    assert torch.allclose(found.attribution, enlarged(scaled(expected)), atol=1e-5)


@pytest.mark.parametrize(("layer", "place"), [("0", 0), ("2", 2), ("3", 3), ("4", 4)])
def test_equals_captum_at_every_layer(deep, pictures, layer, place) -> None:
    target = torch.tensor([3, 1, 2, 0, 1])
    # captum's hooks want no in-place operation behind the layer
    plain = nn.Sequential(*(nn.ReLU() if isinstance(m, nn.ReLU) else m for m in deep))
    peer = LayerGradCam(plain, plain[place]).attribute(pictures, target, relu_attributions=True)[:, 0]
    found = GradCam(layer=layer, steps=0)(deep, pictures, target)
    assert torch.allclose(found.attribution, enlarged(scaled(peer.detach())), atol=1e-5)


def test_default_layer_is_the_last_that_gives_maps(cam, deep, pictures) -> None:
    assert spatial_places(cam, pictures) == ["conv", "relu"]
    assert spatial_places(deep, pictures)[-1] == "4"
    pooled = nn.Sequential(deep[0], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    assert spatial_places(pooled, pictures) == ["0"]


def test_the_end_of_a_residual_block_is_a_layer(pictures) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.conv(x) + x)

    network = nn.Sequential(Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    assert spatial_places(network, pictures)[-1] == "0"
    found = GradCam(steps=0)(network, pictures, torch.ones(5))
    expected = torch.einsum("bkhw,k->bhw", network[0](pictures), network[3].weight[1]).relu()
    assert torch.allclose(found.attribution, enlarged(scaled(expected.detach())), atol=1e-5)


def test_a_relu_that_every_layer_shares(cam, pictures) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.hidden, self.head = cam.conv, nn.ReLU(), cam.fc, nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.relu(self.hidden(self.relu(self.conv(x)).mean((2, 3)))))

    network = Shared().eval()
    found = look(network, pictures, "relu", torch.zeros(5))
    assert torch.equal(found.activation, cam.conv(pictures).relu())
    values = found.activation.clone().requires_grad_(True)
    score = network.head(network.hidden(values.mean((2, 3))).relu())[:, 0]
    assert torch.allclose(found.gradient, torch.autograd.grad(score.sum(), values)[0])


def test_predicted_class_by_default_and_examples_do_not_mix(deep, pictures) -> None:
    found = GradCam(steps=0)(deep, pictures)
    assert torch.equal(found.target, deep(pictures).argmax(1))
    alone = torch.cat([GradCam(steps=0)(deep, p[None]).attribution for p in pictures])
    assert torch.allclose(found.attribution, alone, atol=1e-5)


def test_nothing_of_the_network_changes_even_when_frozen(deep, pictures) -> None:
    free = GradCam(steps=0)(deep, pictures).attribution
    assert all(p.grad is None for p in deep.parameters())
    deep.train().requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(GradCam(steps=0)(deep, pictures).attribution, free)
    assert deep.training
    assert not any(m._forward_hooks for m in deep.modules())


def test_several_inputs(pictures) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 + 2, 3)

        def forward(self, table: Tensor, image: Tensor) -> Tensor:
            return self.fc(torch.cat([self.conv(image).relu().mean((2, 3)), table], 1))

    found = GradCam(steps=4)(Two(), (torch.randn(5, 2), pictures))
    assert found.attribution.shape == (5, 12, 12)
    assert set(found.scores) == {"deletion", "insertion"}


def test_a_constant_map_is_nothing(pictures) -> None:
    assert torch.equal(draw(torch.full((5, 3, 3), 7.0), pictures), torch.zeros(5, 12, 12))


def test_gradient_is_that_of_the_score_before_the_softmax(deep, pictures) -> None:
    seen = look(deep, pictures, "3", torch.zeros(5))
    values = seen.activation.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(deep[4:](values.clone())[:, 0].sum(), values)
    assert torch.allclose(seen.gradient, expected, atol=1e-6)
    assert torch.allclose(seen.activation, deep[:4](pictures), atol=1e-6)


def test_a_layer_that_no_score_depends_on(pictures) -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aside, self.head = nn.Conv2d(3, 2, 3), nn.Linear(3, 2)

        def forward(self, x):
            self.aside(x)
            return self.head(x.mean((2, 3)))

    with pytest.raises(NotApplicable, match="does not depend on layer 'aside'"):
        GradCam()(Aside(), pictures)


def test_refusals(deep, pictures) -> None:
    with pytest.raises(NotApplicable, match="need a layer that gives maps"):
        GradCam()(nn.Linear(4, 2), torch.randn(3, 4))
    with pytest.raises(NotApplicable, match=r"gives shape \(5, 16\)"):
        GradCam(layer="6")(deep, pictures)
    with pytest.raises(UnknownName, match="nosuch"):
        GradCam(layer="nosuch")(deep, pictures)
    with pytest.raises(BadInput, match="out of range"):
        GradCam()(deep, pictures, torch.full((5,), 4))
    with pytest.raises(BadInput, match="one class per example"):
        GradCam()(deep, pictures, torch.tensor([0]))
    with pytest.raises(NotApplicable, match="class scores"):
        GradCam()(nn.Sequential(nn.Conv2d(3, 4, 3)), pictures)
