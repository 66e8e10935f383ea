from __future__ import annotations

import torch
from torch import Tensor

from netwright.explain.grad_cam_plus_plus import GradCamPlusPlus
from netwright.explain.parts.cam import draw, look, plus_plus, weighted_map


def by_autograd(tail, activation: Tensor, target: int) -> Tensor:
    """alpha and weights from explicit first, second and third derivatives of e^S, entry by entry (K,)."""
    shape = activation.shape
    flat = activation.flatten()
    derivatives = torch.zeros(3, flat.numel(), dtype=torch.float64)
    for i in range(flat.numel()):

        def score(value: Tensor, i: int = i) -> Tensor:
            moved = torch.cat([flat[:i], value[None], flat[i + 1 :]])
            return tail(moved.view(1, *shape))[0, target].exp()

        value = flat[i].clone().requires_grad_(True)
        result = score(value)
        for order in range(3):
            (result,) = torch.autograd.grad(result, value, create_graph=True)
            derivatives[order, i] = result.detach()
    d1, d2, d3 = derivatives.view(3, *shape)
    denominator = 2 * d2 + activation.sum((1, 2), keepdim=True) * d3
    alpha = torch.where(denominator == 0, 0.0, d2 / denominator)
    return (alpha * d1.relu()).sum((1, 2))


def test_weights_are_those_of_the_explicit_derivatives(deep, pictures) -> None:
    network = deep.double()
    seen = look(network, pictures[:1].double(), "4", torch.tensor([2]))
    g = seen.gradient
    factor = seen.score.exp()
    found = plus_plus(seen.activation, factor * g, factor * g**2, factor * g**3)[0]
    # functional ReLUs, so that the tail can be differentiated again and again
    tail = lambda a: network[8](network[6](a.flatten(1)).relu())
    expected = by_autograd(tail, seen.activation[0], 2)
    assert expected.abs().max() > 0
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_map_is_the_weighted_sum(deep, pictures) -> None:
    network = deep.double()
    seen = look(network, pictures.double(), "4", None)
    g = seen.gradient
    heat = weighted_map(seen.activation, plus_plus(seen.activation, g, g**2, g**3))
    found = GradCamPlusPlus(steps=0)(network, pictures.double())
    assert torch.allclose(found.attribution, draw(heat, pictures.double()))
    assert found.method == "grad-cam-plus-plus"


def test_zero_denominator_gives_no_weight() -> None:
    a, g = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), -0.5)
    # 2 g^2 + 4 g^3 = 0.5 - 0.5
    assert torch.equal(plus_plus(a, g.abs(), g**2, g**3), torch.zeros(1, 1))


def test_small_gradients_do_not_vanish(deep, pictures) -> None:
    """g^3 of 1e-13 is nothing in single precision; the weights must come out all the same."""
    with torch.no_grad():
        deep[8].weight.mul_(1e-13)
    assert GradCamPlusPlus(steps=0)(deep, pictures, torch.full((5,), 1)).attribution.amax() == 1
