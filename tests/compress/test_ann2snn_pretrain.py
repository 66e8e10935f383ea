"""Spiking neurons by loops and by hand, all moments at once against one by one, and what training them does."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from tests.compress.striped import stripes
from torch import Tensor, nn

from netwright.compress.ann2snn_pretrain import (
    Ann2SnnPretrain,
    Neuron,
    Simulator,
    converted,
    pretrain,
    rates,
    spiking,
    tune,
)
from netwright.compress.ann2snn_pretrain.neurons import Integrator, fires, ramp, sharpened
from netwright.compress.ann2snn_pretrain.spiking import SpikingNetwork
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.files.export import export
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.split import ArraySplit
from netwright.core.task import Task
from netwright.models import build


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Task]:
    return stripes(width=6, epochs=4)


@pytest.mark.parametrize("analogue", [False, True])
def test_a_neuron_is_its_definition(analogue: bool) -> None:
    x = 0.5 + draw(4 * 3, 5)
    found = Neuron(4, analogue)(x).view(4, 3, 5)
    for b in range(3):
        for i in range(5):
            u = s = 0.0
            for t in range(4):
                u = 0.25 * u * (1 - s) + x.view(4, 3, 5)[t, b, i].item()
                s = float(u > 0.5)
                assert found[t, b, i].item() == pytest.approx(max(u, 0.0) if analogue else s)


def test_gradients_pass_near_the_threshold_and_not_through_the_reset() -> None:
    x = torch.tensor([[0.8], [0.2], [-0.3], [0.6]], dtype=torch.float64).requires_grad_()
    Neuron(2)(x).sum().backward()  # moments: (0.8, 0.2), (-0.3, 0.6)
    # first example: u = 0.8 fires, u = 0.25 * 0.8 * 0 - 0.3 is too far down; second: u = 0.2, u = 0.05 + 0.6
    assert x.grad is not None
    assert x.grad[:, 0].tolist() == pytest.approx([1.0, 1.0 + 0.25, 0.0, 1.0])
    y = torch.tensor([-0.01, 0.0, 0.01, 0.5, 0.99, 1.0, 1.01], dtype=torch.float64).requires_grad_()
    fires(y).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [0, 0, 1, 1, 1, 0, 0]
    assert fires(torch.tensor([0.5, 0.5001])).tolist() == [0, 1]


def test_the_ramp_steepens_to_the_step() -> None:
    assert ramp(0.0) == pytest.approx((0.005, 0.995))
    assert ramp(0.5) == pytest.approx((0.25, 0.75))
    assert ramp(1.0) == pytest.approx((0.49, 0.5))
    x = torch.tensor([-1.0, 0.1, 0.25, 0.4, 0.75, 0.9, 1.4], dtype=torch.float64).requires_grad_()
    out = sharpened(x, 0.25, 0.75)
    assert out.tolist() == pytest.approx([0, 0, 0, 0.3, 1, 1, 1])
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]  # the spike's, not the ramp's
    y = draw(1000)
    sure = (y < 0.49) | (y > 0.5)  # between them the last ramp is still one
    assert sure.sum() > 900
    assert torch.equal(sharpened(y, *ramp(1.0))[sure], fires(y)[sure])


def test_without_time_it_is_a_ramp_while_trained_and_the_step_in_use() -> None:
    neuron, x = Neuron(1), draw(6, 4)
    neuron.ends = (0.2, 0.8)
    assert torch.equal(neuron.train()(x), sharpened(x, 0.2, 0.8))
    assert torch.equal(neuron.eval()(x), (x > 0.5).double())


class Residual(nn.Module):
    """One ReLU module in two places, the second behind a sum; batch norm; pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(x + self.second(x))
        return self.head(F.max_pool2d(x, 2).mean((2, 3)))


@pytest.mark.parametrize("analogue", [False, True])
def test_all_moments_at_once_are_the_moments_one_by_one(analogue: bool) -> None:
    with seeded(0):
        network = Residual().double().eval()
    frames = 2 * draw(3, 5, 2, 8, 8)
    network.norm.running_var.fill_(0.3)
    made = spiking(network.float(), frames[:, 0].float(), 5, analogue).double().eval()
    made.clips = True
    simulator = Simulator(made)
    for t in range(5):
        so_far = simulator.step(frames[:, t])
    assert torch.allclose(so_far, made(frames), atol=1e-12)
    assert not torch.allclose(so_far, made(frames.flip(1)), atol=1e-6)  # the order of moments counts
    made.clips = False
    still, simulator = frames[:, 0], Simulator(made)
    for _ in range(5):
        so_far = simulator.step(still)
    assert torch.allclose(so_far, made(still), atol=1e-12)
    assert torch.equal(Simulator(made).step(still), made.at(1)(still))


def test_neurons_fire_behind_the_sum_and_statistics_are_over_time_and_examples() -> None:
    with seeded(0):
        network = Residual()
    made = spiking(network, torch.zeros(2, 2, 8, 8), 3)
    assert isinstance(made.frames.relu, Neuron)
    fired = []
    made.frames.relu.register_forward_hook(lambda m, a, out: fired.append(out))
    made.clips = True
    x = draw(5, 3, 2, 8, 8).float()
    made.train()(x)
    assert [set(f.unique().tolist()) for f in fired] == [{0.0, 1.0}] * 2
    seen = made.frames.first(x.flatten(0, 1)).detach()
    assert torch.allclose(made.frames.norm.running_mean, 0.1 * seen.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(
        made.frames.norm.running_var, 0.9 + 0.1 * seen.transpose(0, 1).flatten(1).var(1), atol=1e-5
    )
    assert isinstance(network.relu, nn.ReLU)


def test_an_integrator_gives_the_value_cut_and_rounded() -> None:
    x, top, steps = 2 * draw(200), 1.7, 8
    found = Integrator(steps, top).double()(x.repeat(steps, 1).view(-1)).view(steps, -1).mean(0)
    expected = (x * steps / top + 0.5).floor().clamp(0, steps) * top / steps
    assert torch.allclose(found, expected, atol=1e-6)


def test_conversion_comes_near_the_given_network_with_time(trained: tuple[nn.Module, Task]) -> None:
    network, task = trained
    x = task.example(24)[0]
    gap = lambda steps: (converted(network, task.train, steps)(x) - network(x)).norm().item()
    with torch.no_grad():
        near, far = gap(40), gap(2)
        assert near < 0.15 * network(x).norm().item()
    assert near < 0.5 * far


def test_training_without_time_then_with_it(trained: tuple[nn.Module, Task]) -> None:
    network, task = trained
    before = {k: v.clone() for k, v in network.state_dict().items()}
    method = Ann2SnnPretrain(steps=3, epochs=4, tune=2, batch_size=32)
    made = method(network, task, Budget())
    assert evaluate(made, task, "test")["accuracy"] > 0.85
    assert not made.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    x = task.example(8)[0]
    assert torch.equal(method(network, task, Budget())(x), made(x))
    fired = rates(made, x)
    assert len(fired) == 2
    assert all(0 < rate < 1 for rate in fired.values())
    given = Ann2SnnPretrain(steps=3, tune=0, start="given")(network, task, Budget())
    for name, value in given.frames.named_parameters():
        assert torch.equal(value, before[name])
    bare = Ann2SnnPretrain(steps=3, tune=0, start="none")(network, task, Budget())
    assert all((m.weight == 0.5).all() for m in bare.modules() if isinstance(m, nn.BatchNorm2d))
    assert not torch.equal(bare.frames[0].weight, before["0.weight"])


def test_each_part_has_its_schedule(trained: tuple[nn.Module, Task], monkeypatch: pytest.MonkeyPatch) -> None:
    network, task = trained
    made = spiking(network, task.example(2), 4)
    neurons = [m for m in made.modules() if isinstance(m, Neuron)]
    ends, steps, rates_ = [], [], []

    def watch(neuron: Neuron, args, output) -> None:
        ends.append(neuron.ends)
        steps.append(neuron.steps)

    handle = neurons[0].register_forward_hook(watch)
    fit = Fit(epochs=2, batch_size=64, optimiser="sgd", lr=0.05, weight_decay=0.0)
    pretrain(made, task, fit, Budget().start())
    assert ends[0] == ramp(0.0)
    assert ends[-1] == pytest.approx(ramp(1 - 1 / (len(ends))), abs=0.06)
    assert [e[0] for e in ends] == sorted(e[0] for e in ends)
    assert set(steps) == {1}
    assert all(n.ends is None for n in neurons)
    handle.remove()
    original = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD,
        "step",
        lambda self, *a: (rates_.append(self.param_groups[0]["lr"]), original(self, *a))[1],
    )
    tune(made.at(4), task, 5, fit, Budget().start())
    assert sorted(set(rates_), reverse=True) == pytest.approx([0.05 * 0.3**i for i in range(5)])


def test_batch_statistics_are_measured_anew_for_moments(trained: tuple[nn.Module, Task]) -> None:
    network, task = trained
    made = spiking(network, task.example(2), 4)
    second = [m for m in made.modules() if isinstance(m, nn.BatchNorm2d)][1]
    before, seen = second.running_mean.clone(), []
    tune(made, task, 0, Fit(batch_size=64), Budget().start())
    second.register_forward_hook(lambda m, a, o: seen.append(a[0]))
    with torch.no_grad():
        for x, _ in task.train.batches(1000):
            made(x)
    expected = torch.cat(seen).mean((0, 2, 3))
    assert (second.running_mean - expected).norm() < 0.1 * (before - expected).norm()


def test_a_budget_in_epochs_is_shared_by_what_each_part_costs(
    trained: tuple[nn.Module, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, task = trained
    spent, original = [], Fit.__call__

    def watched(self: Fit, *args, **kwargs):
        before = kwargs["meter"].epochs
        done = original(self, *args, **kwargs)
        spent.append(kwargs["meter"].epochs - before)
        return done

    monkeypatch.setattr(Fit, "__call__", watched)
    Ann2SnnPretrain(steps=2, epochs=6, tune=3, batch_size=32)(network, task, Budget(epochs=2))
    assert spent == pytest.approx([1.0, 1.0], abs=0.1)


def test_it_leaves_as_onnx(trained: tuple[nn.Module, Task], tmp_path) -> None:
    network, task = trained
    made = Ann2SnnPretrain(steps=3, epochs=1, tune=1, batch_size=64)(network, task, Budget())
    written = export(made, task.example(2), tmp_path / "spikes.onnx")
    assert written.dynamic_batch
    x = task.example(16)[0]
    session = onnxruntime.InferenceSession(tmp_path / "spikes.onnx")
    (found,) = session.run(None, {"input": x.numpy()})
    with torch.no_grad():
        away = (torch.from_numpy(found) - made(x)).abs().amax(1)
    assert (away < 1e-4).float().mean() > 0.9  # a membrane on the threshold may fall either way


def test_clips_are_trained_on_from_frames(trained: tuple[nn.Module, Task]) -> None:
    """Stripes that come in row by row: no single moment tells them, the sum of them does."""
    network, task = trained
    with seeded(1):
        made = spiking(network, task.example(2), 2)
    parts = {}
    for role in ("train", "val", "test"):
        ((x, y),) = getattr(task, role).batches(1000)
        upper, lower = x.clone(), x.clone()
        upper[:, :, 4:], lower[:, :, :4] = 0, 0
        parts[role] = ArraySplit((torch.stack([upper, lower], 1),), y)
    moving = Task.from_arrays(
        parts["train"].inputs[0], parts["train"].targets, meaning="other",
        val=(parts["val"].inputs[0], parts["val"].targets), test=(parts["test"].inputs[0], parts["test"].targets),
    )  # fmt: skip
    clips = SpikingNetwork(made.frames, 2, clips=True)
    fit = Fit(batch_size=32, optimiser="sgd", lr=0.05, weight_decay=0.0, augment=False)
    tune(clips, moving, 4, fit, Budget().start())
    assert evaluate(clips, moving, "test")["accuracy"] > 0.75


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layer(x))


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Functional(), "no module"),
        (nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3)), "gelu"),
        (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3), nn.Softmax(1)), "softmax"),
        (nn.Linear(6, 3), "no ReLU"),
    ],
    ids=["functional", "gelu", "softmax", "linear"],
)
def test_other_networks_are_refused(network: nn.Module, why: str) -> None:
    with pytest.raises(NotApplicable, match=why):
        spiking(network, torch.zeros(2, 6), 3)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"start": "relu"}])
def test_settings_are_checked(settings, trained: tuple[nn.Module, Task]) -> None:
    with pytest.raises(BadInput):
        Ann2SnnPretrain(**settings)(*trained, Budget())


def test_it_serves_the_networks_that_are_built_here() -> None:
    for name in ("resnet", "cnn"):
        network = build(name, (1, 8, 8), 3)
        made = spiking(network, torch.zeros(2, 1, 8, 8), 2)
        assert not any(isinstance(m, nn.ReLU) for m in made.modules())
        assert made(torch.zeros(3, 1, 8, 8)).shape == (3, 3)
