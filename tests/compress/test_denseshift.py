"""Shift weights against the paper's formula, by hand: values, gradients, codes, files."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tests.compress.striped import stripes
from torch import nn
from torch.nn.utils import parametrize

from netwright.compress.denseshift import DenseShift, Kept, Shifts, code
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.progress import remarks
from netwright.core.task import Task
from netwright.core.weights.bits import PackedBits


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_code_is_a_power_of_two_and_none_is_zero():
    found = {}
    for s, *steps in itertools.product((-0.5, 0.0, 0.5), (-1.0, 0.0, 2.0), (-1.0, 2.0), (-1.0, 2.0)):
        h = [float(t > 0) for t in steps]
        p = ((h[0] + 1) * h[1] + 1) * h[2]
        value = Shifts(4, 1e-3, False)(torch.tensor([3.0]), *(torch.tensor([v]) for v in (s, *steps)))
        assert value.item() == 3 * (1 if s >= 0 else -1) * 2**p
        found[value.item() / 3] = True
    assert sorted(found) == [-8, -4, -2, -1, 1, 2, 4, 8]
    assert Shifts(2, 1e-3, False)(torch.ones(1), torch.ones(1), torch.ones(1)).item() == 2


def test_the_gradient_is_that_of_the_root_with_straight_steps():
    latents = [draw(7, seed=i).requires_grad_() for i in range(4)]
    scale, g = torch.tensor([0.5], requires_grad=True), draw(7, seed=9)
    w = Shifts(4, 1e-3, False)(scale, *latents)
    (w * g).sum().backward()
    s, a, b, c = (t.detach() for t in latents)
    h1, h2, h3 = ((t > 0).float() for t in (a, b, c))
    sign, p = torch.where(s >= 0, 1.0, -1.0), ((h1 + 1) * h2 + 1) * h3
    root = (p + 1).sqrt()
    into_p = 0.5 * g * sign / (2 * root)
    expected = (0.5 * g * root, into_p * h2 * h3, into_p * (h1 + 1) * h3, into_p * ((h1 + 1) * h2 + 1))
    for latent, wanted in zip(latents, expected, strict=True):
        torch.testing.assert_close(latent.grad, wanted)
    torch.testing.assert_close(scale.grad, (g * sign * 2**p).sum()[None])


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_given_weights_are_where_the_training_starts(bits):
    w = draw(5, 4, 3, 3) * torch.logspace(-2, 0, 5).view(-1, 1, 1, 1)
    with seeded(0):
        made = Shifts(2 ** (bits - 1), 1e-3, True)
        latents = made.right_inverse(w)
    assert len(latents) == 1 + 2 ** (bits - 1)
    assert max(float(t.abs().max()) for t in latents[1:]) < 0.01
    found = made(*latents)
    assert torch.equal(found.sign(), torch.where(w >= 0, 1.0, -1.0))
    top = w.abs().amax((1, 2, 3), keepdim=True)
    exponent = (w.abs() / top).log2().round().clamp(min=1 - 2 ** (bits - 1))
    torch.testing.assert_close(found.abs(), top * 2**exponent)


def test_random_weights_are_as_large_as_those_that_were_there():
    w = 0.3 * draw(6, 40, 3, 3)
    with seeded(1):
        made = Shifts(4, 1e-3, False)
        latents = made.right_inverse(w)
    found = made(*latents)
    assert float(found.pow(2).mean()) == pytest.approx(float(w.pow(2).mean()), rel=0.1)
    assert 0.45 < float((found > 0).float().mean()) < 0.55
    assert float(latents[2].std()) == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_codes_are_the_weights_exactly(bits):
    scale = draw(6, 1, seed=3).abs() + 0.1
    p = torch.randint(0, 2 ** (bits - 1), (6, 50), generator=torch.Generator().manual_seed(0))
    p[0] = 0  # a row without the largest
    w = scale * draw(6, 50).sign() * 2.0**p
    found = code(w, bits)
    assert torch.equal(found.values, w)
    assert found.twin.levels.shape == (6, 2**bits)
    packed = PackedBits(found.twin, bits, w.shape)
    assert torch.equal(packed(), w)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Task]:
    return stripes(width=6, epochs=4)


def test_training_packing_and_its_twin(trained):
    network, task = trained
    method = DenseShift(epochs=4, batch_size=32, optimiser="adamw", lr=1e-2)
    with remarks() as said:
        twin, made = method.pair(network, task, Budget())
    x = task.example(20)[0]
    assert torch.equal(twin(x), made(x))
    assert evaluate(made, task, "test")["accuracy"] > 0.8
    (packed,) = [m for m in made.modules() if isinstance(m, PackedBits)]
    assert packed.bits == 3
    ratios = packed() / packed().abs().amax((1, 2, 3), keepdim=True)
    assert set(ratios.abs().flatten().tolist()) <= {1.0, 0.5, 0.25, 0.125}
    assert packed.nbytes < 432 * 3 / 8 + 8 * 8 + 33
    assert "kept their value" in said[0]
    for wrong, name in (({"bits": 5}, "2 to 4"), ({"start": "x"}, "given")):
        with pytest.raises(BadInput, match=name):
            DenseShift(**wrong)(network, task, Budget())
    with pytest.raises(NotApplicable, match="float32"):
        DenseShift()(nn.Sequential(nn.Linear(2, 2)).double(), task, Budget())


def test_what_is_learned_is_what_is_kept(trained):
    network, task = trained
    learning, names = DenseShift(start="given").learning(network, task)
    assert names == ["3"]
    before = learning.eval()(task.example(20)[0]).detach()
    made = DenseShift(start="given", epochs=0.01, lr=0.0, batch_size=320)(network, task, Budget(epochs=0.0))
    torch.testing.assert_close(made(task.example(20)[0]), before, rtol=1e-4, atol=1e-5)
    whole = network(task.example(20)[0]).detach()
    assert float((before - whole).abs().mean()) < 0.5 * float(whole.abs().mean())


def test_weights_that_change_are_counted():
    layer = nn.Linear(3, 2, bias=False)
    with seeded(0):
        parametrize.register_parametrization(layer, "weight", Shifts(4, 1e-3, False))
    latents = layer.parametrizations.weight
    kept = Kept(layer, since=2.0)

    class Now:
        class meter:
            epochs = 1.0

    kept(Now)
    assert not kept.codes
    Now.meter.epochs = 2.0
    kept(Now)
    with torch.no_grad():
        latents.original1[0, 0] *= -1  # a sign
        latents.original0.mul_(2.0)  # a scale is no code
    kept(Now)
    with torch.no_grad():
        latents.original1[0, 0] *= -1  # and back
        latents.original4[1, 2] *= -1  # the last step: 0, or not
    kept(Now)
    assert kept.share == pytest.approx(4 / 6)
    assert math.isfinite(kept.share)
