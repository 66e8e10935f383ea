"""Delta layers against closed forms, inference by deltas against the dense network, what training does to changes."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netwright.compress.delta_act import DeltaAct
from netwright.compress.delta_act.engine import DeltaEngine, activity, work
from netwright.compress.delta_act.frames import Clips, apart, check_frames
from netwright.compress.delta_act.layer import Delta, change
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.network import clone
from netwright.core.progress import remarks
from netwright.core.task import Task

QUICK = Fit(epochs=4, batch_size=16, lr=1e-2, weight_decay=0.0)


def moving(count: int, length: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A spot of one of three shapes walks over a background that stays: (B, T, 1, 12, 12)."""
    draw = torch.Generator().manual_seed(seed)
    clips = (0.3 * torch.rand(count, 1, 1, 12, 12, generator=draw)).repeat(1, length, 1, 1, 1)
    y = torch.arange(count) % 3
    at = torch.randint(0, 5, (count, 2), generator=draw)
    for n in range(count):
        shape = torch.ones(4, 4)
        shape[1:3, 1:3] = 0 if y[n] == 1 else 1
        if y[n] == 2:
            shape = torch.eye(4)
        for t in range(length):
            i, j = (at[n] + t).clamp(max=8)
            clips[n, t, 0, i : i + 4, j : j + 4] = shape
    return clips, y


class Net(nn.Module):
    """Frames through a bit of everything, then the mean over them."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.grouped, self.down = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(8, 6, 3, 2, 1)
        self.hidden, self.still, self.head = nn.Linear(6 * 9, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        y = F.max_pool2d(self.relu(self.norm(self.conv(x.flatten(0, 1)))), 2)
        y = self.relu(self.down(torch.cat([self.relu(self.grouped(y)) + y, y], 1))).flatten(1)
        return self.head(self.still(F.gelu(self.hidden(y)))).unflatten(0, x.shape[:2]).mean(1)


@cache
def task() -> Task:
    return Task.from_arrays(*moving(48), val=moving(24, seed=1), test=moving(24, seed=2), name="spots")


@cache
def _trained() -> nn.Module:
    torch.manual_seed(0)
    network = Net()
    Fit(epochs=5, batch_size=16, lr=1e-2)(network, task())
    return network


def trained() -> nn.Module:
    return clone(_trained())


def test_a_layer_rounds_and_its_gradients_are_those_of_the_formulas():
    x = torch.randn(3, 4, dtype=torch.float64)
    g = torch.randn(3, 4, dtype=torch.float64)
    for gradient in ("released", "lsq", "fixed"):
        layer = Delta(0.25, gradient).double()
        with torch.no_grad():
            layer.parameter.neg_()  # theta is its size
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        codes = (x / 0.25).round()
        torch.testing.assert_close(y, 0.25 * codes)
        with torch.no_grad():
            assert torch.equal(layer(x), y)
        (y * g).sum().backward()
        torch.testing.assert_close(leaf.grad, g)
        if gradient == "fixed":
            assert layer.parameter.grad is None
            assert not layer.parameter.requires_grad
            continue
        expected = -codes if gradient == "released" else codes - x / 0.25
        torch.testing.assert_close(layer.parameter.grad, -(g * expected).sum())


def test_steps_never_reach_zero_and_find_back():
    layer = Delta(0.1)
    with torch.no_grad():
        layer.parameter.fill_(1e-9)
    assert layer(torch.ones(2)).tolist() == pytest.approx([1, 1], abs=1e-4)
    layer(torch.ones(2)).sum().backward()
    assert layer.parameter.grad != 0
    for wrong in ({"theta": 0.0}, {"gradient": "none"}):
        with pytest.raises(BadInput):
            Delta(**wrong)


def test_the_loss_on_changes_leaves_the_first_frame_out():
    y = torch.tensor([[[5.0, 1.0], [5.0, 2.0], [1.0, 2.0]]], requires_grad=True)
    loss = change(y)
    assert loss.item() == pytest.approx((0 + 1 + 4 + 0) / 4)
    loss.backward()
    assert y.grad.tolist() == [[[0.0, -0.25], [0.25, 0.25], [-0.25, 0.0]]]


UNTRAINED = Fit(epochs=0.01, lr=0.0, weight_decay=0.0)


@cache
def _made(**settings) -> tuple[nn.Module, list[str]]:
    with remarks() as said:
        return DeltaAct(**{"fit": UNTRAINED, **settings})(trained(), task(), Budget()), said


def made(**settings) -> nn.Module:
    return clone(_made(**settings)[0])


def test_without_training_and_with_tiny_steps_it_is_the_same_network():
    x = moving(5, seed=4)[0]
    fine, coarse = made(), made()
    for layer in fine.modules():
        if isinstance(layer, Delta):
            layer.parameter.data.fill_(1e-4)
    torch.testing.assert_close(fine(x), trained().eval()(x), atol=1e-3, rtol=1e-3)
    y = moving(5, length=7, seed=4)[0]  # clips of any length
    assert coarse(y).shape == (5, 3)
    assert (coarse(x) - fine(x)).abs().max() > 1e-3


def test_every_activation_has_a_layer_of_its_own_behind_the_pooling():
    network = made()
    layers = {n: m for n, m in network.frames.named_modules() if isinstance(m, Delta)}
    assert len(layers) == 4  # relu runs three times, once before pooling
    seen = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _m, args, _o, name=name: seen.update({name: args[0].shape}))
    network(moving(2)[0])
    assert [tuple(s[1:]) for s in seen.values()] == [(4, 6, 6), (4, 6, 6), (6, 3, 3), (8,)]
    assert not any("norm.running_mean" in name for name in network.state_dict())  # folded


@pytest.mark.parametrize(
    ("per", "conv", "linear"),
    [("layer", (), ()), ("channel", (4, 1, 1), (8,)), ("neuron", (4, 6, 6), (1, 8))],
)
def test_steps_per_layer_channel_and_neuron(per, conv, linear):
    method = DeltaAct(per=per, theta=0.5, gradient="lsq")
    for shape, expected in (((2, 4, 6, 6), conv), ((2, 1, 8), linear)):
        layer = method.new_layer(shape)
        assert tuple(layer.parameter.shape) == expected
        assert bool((layer.parameter == 0.5).all())
        assert layer.gradient == "lsq"


def test_deltas_give_what_the_dense_network_gives_over_a_long_clip():
    network = made().double()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, Delta):
                layer.parameter.mul_(0.5 + torch.rand_like(layer.parameter))
    draw = torch.Generator().manual_seed(0)
    frame = moving(1)[0][:, :1].double()
    clip = [frame]
    for t in range(100):
        if t == 60:
            frame = torch.rand(frame.shape, generator=draw).double()  # a cut
        move = torch.rand(frame.shape, generator=draw) < 0.05
        frame = torch.where(move, torch.rand(frame.shape, generator=draw).double(), frame)
        clip.append(frame)
    clip = torch.cat(clip, 1)
    engine = DeltaEngine(network, frame, dense_above=1.0)
    with torch.no_grad():
        dense = network(apart(clip))
    assert dense.std(0).min() > 0.01
    for engine.dense_above in (1.0, 0.2):
        engine.reset()
        assert engine.state_bytes == 0
        found = torch.cat([engine(clip[:, t : t + 1]) for t in range(clip.shape[1])])
        assert (found - dense).abs().max() < 1e-9
    kept = 144 + 4 * 144 + 2 * 4 * 36 + 8 * 36 + 6 * 9 + 6 * 9 + 8 + 8 + 3  # inputs and sums of five layers
    assert engine.state_bytes == 8 * kept


def test_work_is_counted_where_inputs_change():
    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.b(F.relu(self.a(x))).mean(1)

    line = Line()
    with torch.no_grad():
        line.a.weight.zero_()
        line.a.bias.copy_(torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0]))
        line.a.weight[0, 0] = 1.0
    clips = torch.zeros(1, 3, 3)
    clips[0, 1:, 0], clips[0, 2, 1] = 1.0, 1.0
    found = work(line, clips)
    assert found.dense == 15 + 10
    # a: one input changes, then another; b: one hidden value changes, then none
    assert found.changed == (5 + 2 + 5 + 0) / 2
    assert found.nonzero == (5 + 4 + 10 + 4) / 2
    assert found.first == 0 + 4


def test_training_makes_changes_rare():
    x = task().test.inputs[0]
    share = lambda network: sum(s for s, _ in activity(network, x).values())
    free, held = made(), made(weight=6.0, fit=QUICK)
    assert share(held) < 0.7 * share(free)
    steps = lambda network: [m.parameter.item() for m in network.modules() if isinstance(m, Delta)]
    assert steps(free) == pytest.approx([0.1] * 4)
    assert min(steps(held)) > 0.1  # differences let them grow
    assert not held.training


def test_activity_is_the_share_that_changes_and_the_share_that_is_not_zero():
    network = Clips(nn.Sequential(Delta(1.0), nn.Flatten()))
    clips = torch.tensor([[[3.0, 0.2, 1.0], [3.1, 0.7, 0.0], [3.2, 0.9, 1.0]]])
    assert activity(network, clips) == {"frames.0": (3 / 6, 5 / 6)}


def test_it_says_what_changes():
    network, said = _made()
    shares = [100 * sum(s) / 4 for s in zip(*activity(network, task().example(2)[0]).values(), strict=True)]
    expected = f"{shares[0]:.1f} % of activations change from frame to frame, {shares[1]:.1f} % are not 0"
    assert expected in said


class Joining(Net):
    def forward(self, x):
        return super().forward(x - x.mean(1, keepdim=True))


class Whole(nn.Module):
    """Takes clips of four frames only, as channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 3)

    def forward(self, x):
        return self.conv(x[:, :, 0]).relu().mean((2, 3))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(144, 3)

    def forward(self, x):
        return self.head(x.flatten(2)).sigmoid().mean(1)


@pytest.mark.parametrize(
    ("network", "why"), [(Joining(), "joins frames"), (Whole(), "single frame"), (Bare(), "no activation")]
)
def test_what_it_refuses(network, why):
    with pytest.raises(NotApplicable, match=why):
        DeltaAct()(network, task(), Budget(epochs=0.1))


def test_data_and_settings_that_it_refuses():
    flat = Task.from_arrays(torch.randn(40, 5), torch.arange(40) % 2)
    with pytest.raises(NotApplicable, match="clips of two frames"):
        check_frames(nn.Linear(5, 2), flat)
    with pytest.raises(BadInput):
        made(weight=-1.0)
    with pytest.raises(BadInput):
        DeltaAct(per="row").new_layer((2, 3))
    with pytest.raises(NotApplicable, match="no 2-d convolution"):
        DeltaEngine(nn.Flatten(), torch.randn(1, 1, 4))
