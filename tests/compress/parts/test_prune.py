"""Structured pruning: scores against brute force, targets met, networks that stay plain and learn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.compress.parts.keep import Sizes, choose
from netwright.compress.parts.prune import Prune
from netwright.core import catalogue
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.graph import dependencies, trace
from netwright.core.graph.importance import at_random, magnitude, taylor
from netwright.core.measure.cost import cost
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.task import Task
from netwright.data import task as named_task
from netwright.models import build


def image_task(examples: int = 240) -> Task:
    draw = torch.Generator().manual_seed(5)
    prototypes = torch.randn(3, 2, 8, 8, generator=draw)
    y = torch.arange(examples) % 3
    return Task.from_arrays(prototypes[y] + 0.8 * torch.randn(examples, 2, 8, 8, generator=draw), y)


def small_cnn() -> nn.Module:
    with seeded(0):
        return build("cnn", (2, 8, 8), 3, widths=(16, 32)).eval()


class Gates(nn.Module):
    """The CNN with a factor on every channel, after its ReLU."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.z1, self.z2 = nn.Parameter(torch.ones(16)), nn.Parameter(torch.ones(32))

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.network.named_children():
            x = layer(x)
            if name in ("relu1", "relu2"):
                x = x * (self.z1 if name == "relu1" else self.z2).view(1, -1, 1, 1)
        return x


def test_taylor_is_the_squared_derivative_by_a_gate() -> None:
    network, task = small_cnn(), image_task()
    found = dependencies(trace(network, task.example(2)))
    got = taylor(network, found.groups, task, 64, 16, 3, Budget().start())
    gates = Gates(network)
    expected = {"conv1": torch.zeros(16), "conv2": torch.zeros(32)}
    for (x, y), _ in zip(task.train.batches(16, shuffle=True, seed=3), range(4), strict=False):
        gates.zero_grad()
        F.cross_entropy(gates(x), y).backward()
        expected["conv1"] += gates.z1.grad**2
        expected["conv2"] += gates.z2.grad**2
    for name, scores in expected.items():
        torch.testing.assert_close(got[name], scores, rtol=1e-3, atol=1e-9)


def test_taylor_of_recurrent_units_and_heads_is_a_gates_derivative_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.RNN(4, 6, batch_first=True), nn.Linear(6, 3)
            self.register_buffer("gate", torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(len(x), 6)  # the same network, written out, so that a gate can sit in the loop
            r = self.rnn
            for t in range(x.shape[1]):
                h = torch.tanh(
                    x[:, t] @ r.weight_ih_l0.t() + h @ r.weight_hh_l0.t() + r.bias_ih_l0 + r.bias_hh_l0
                )
                h = h * self.gate
            return self.head(h)

    class Plain(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    network, y = Plain().eval(), torch.arange(60) % 3
    task = Task.from_arrays(torch.randn(60, 5, 4), y)
    found = dependencies(trace(network, task.example(2)))
    got = taylor(network, found.groups, task, 8, 8, 0, Budget().start())
    gated = Net()
    gated.load_state_dict({**network.state_dict()})
    gated.gate.requires_grad_()
    x, y = next(iter(task.train.batches(8, shuffle=True, seed=0)))
    F.cross_entropy(gated(x), y).backward()
    torch.testing.assert_close(got["rnn"], gated.gate.grad**2, rtol=1e-3, atol=1e-9)


def test_magnitude_is_the_norm_of_all_weights_of_a_unit() -> None:
    network = small_cnn()
    found = dependencies(trace(network, torch.randn(2, 2, 8, 8)))
    scores = magnitude(network, found.groups)
    expected = network.conv1.weight.abs().sum((1, 2, 3)) + network.conv2.weight.abs().sum((0, 2, 3))
    torch.testing.assert_close(scores["conv1"], expected.detach())


@pytest.mark.parametrize("name", ["cnn", "resnet", "dscnn", "lstm", "vit"])
def test_predicted_sizes_are_those_of_the_pruned_network(name: str) -> None:
    shape = (6, 5) if name == "lstm" else (2, 8, 8)
    network = build(name, shape, 3).eval()
    example = torch.randn(2, *shape)
    found = dependencies(trace(network, example))
    sizes = Sizes(found)
    scores = {group.name: torch.rand(group.size) for group in found.groups}
    full = {group.name: group.size for group in found.groups}
    keep = choose(sizes, scores, 0.5 * sizes.measure(full, "macs"), "macs", "global", 0.1, 1)
    from netwright.core.graph import prune

    small = prune(network, example, keep, found)
    counts = {group: len(kept) for group, kept in keep.items()}
    before, after = cost(network, example), cost(small, example)
    assert sizes.measure(counts, "parameters") == after.parameters
    if name != "vit":  # attention multiplies activations, which the prediction leaves out
        assert sizes.measure(counts, "macs") == after.macs
    assert after.macs < 0.6 * before.macs


@pytest.mark.parametrize("of", ["macs", "parameters", "units"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_targets_and_limits(of: str, scope: str) -> None:
    network = build("resnet", (2, 8, 8), 3, depth=8, width=16).eval()
    found = dependencies(trace(network, torch.randn(2, 2, 8, 8)))
    sizes = Sizes(found)
    full = {group.name: group.size for group in found.groups}
    whole = sizes.measure(full, of)
    scores = {group.name: torch.rand(group.size) for group in found.groups}
    keep = choose(sizes, scores, 0.5 * whole, of, scope, 0.1, 1)
    counts = {name: len(kept) for name, kept in keep.items()}
    assert 0.45 * whole < sizes.measure(counts, of) <= 0.5 * whole
    if scope == "layer":
        shares = [counts[name] / size for name, size in full.items()]
        assert max(shares) - min(shares) < 0.07
    for name, kept in keep.items():  # the best of each group stay
        lost = scores[name].clone()
        lost[kept] = -1
        assert len(kept) == full[name] or scores[name][kept].min() >= lost.max()
    rounded = choose(sizes, scores, 0.5 * whole, of, scope, 0.1, 8)
    assert all(len(kept) % 8 == 0 for kept in rounded.values())
    assert len(choose(sizes, scores, 0.0, of, scope, 0.25, 1)["conv"]) == 4


@pytest.mark.parametrize("slug", ["taylor-pruning", "magnitude-pruning", "random-pruning"])
def test_a_trained_network_is_halved_and_keeps_its_accuracy(slug: str) -> None:
    network, task = small_cnn(), image_task(480)
    Fit(epochs=6, batch_size=32, lr=5e-3)(network, task)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    method = catalogue.method(slug).build(epochs=4, batch_size=32, lr=5e-3)
    small = method(network, task, Budget())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    example = task.example(1)
    assert cost(small, example).macs <= 0.55 * cost(network, example).macs
    assert evaluate(small, task)["accuracy"] > evaluate(network, task)["accuracy"] - 0.05
    again = method(network, task, Budget())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in small.state_dict().items())


@pytest.mark.parametrize("importance", ["taylor", "magnitude", "random"])
def test_what_goes_has_the_lowest_scores_of_all_layers(importance: str) -> None:
    network, task = small_cnn(), image_task()
    found = dependencies(trace(network, task.example(2)))
    scores = {
        "taylor": lambda: taylor(network, found.groups, task, 64, 16, 3, Budget().start()),
        "magnitude": lambda: magnitude(network, found.groups),
        "random": lambda: at_random(found.groups, 3),
    }[importance]()
    method = catalogue.method(f"{importance}-pruning")
    small = method.build(ratio=0.25, of="units", epochs=0, round_to=1, samples=64, seed=3)(
        network, task, Budget()
    )
    relative = {name: (score / score.mean()).tolist() for name, score in scores.items()}
    ranked = sorted((v, name, i) for name, values in relative.items() for i, v in enumerate(values))
    gone = {(name, i) for _, name, i in ranked[: len(ranked) // 4]}
    first, second = (
        [i for i in range(len(scores[name])) if (name, i) not in gone] for name in ("conv1", "conv2")
    )
    assert len(first) + len(second) == 36
    assert torch.equal(small.conv1.weight, network.conv1.weight[first])
    assert torch.equal(small.conv2.weight, network.conv2.weight[second][:, first])


def test_each_step_tunes_with_its_part_of_the_epochs_and_of_the_budget(monkeypatch) -> None:
    import netwright.compress.parts.prune as module

    seen = []

    class Spy(Fit):
        def __call__(self, network, task, meter, loss):
            seen.append((self, meter.budget))
            assert loss is None  # nobody teaches unless asked
            return super().__call__(network, task, meter=meter)

    monkeypatch.setattr(module, "Fit", Spy)
    task = image_task()
    method = Prune("magnitude", steps=3, epochs=4.5, lr=2e-3, batch_size=12, seed=5, round_to=1)
    method(small_cnn(), task, Budget(epochs=2))
    assert [(fit.epochs, fit.lr, fit.batch_size, fit.seed) for fit, _ in seen] == [
        (1.5, 2e-3, 12, seed) for seed in (5, 6, 7)
    ]
    batch = 12 / len(task.train)
    assert [budget.epochs for _, budget in seen] == pytest.approx([2 / 3] * 3, abs=batch)


def test_the_given_network_can_teach_what_is_left_of_it_and_is_charged_for() -> None:
    """With all labels permuted, only the teacher can have taught the right classes."""
    task = named_task("digits")
    network = build("cnn", task.input_shape, task.outputs, widths=(8, 16))
    Fit(epochs=8, lr=3e-3)(network, task)
    x, y = next(iter(task.train.batches(10_000)))
    wrong = Task.from_arrays(x, (y + 1) % 10, val=(x[:50], y[:50]), test=(x[:50], y[:50]))
    made = lambda alpha: Prune("magnitude", epochs=4, lr=3e-3, round_to=1, alpha=alpha)
    assert evaluate(made(1.0)(network, wrong, Budget()), task)["accuracy"] > 0.5
    assert evaluate(made(0.0)(network, wrong, Budget()), task)["accuracy"] < 0.3
    meters, begin = [], Budget.start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Budget, "start", lambda self: (meters.append(begin(self)), meters[-1])[1])
        made(0.5)(network, wrong, Budget(samples=2000))
    whole, tuning = meters
    assert whole.samples == tuning.samples
    assert tuning.samples >= 2000
    assert tuning.epochs * len(wrong.train) == pytest.approx(
        tuning.samples / 2
    )  # the other half are the teacher's


def test_sizes_of_transposed_and_one_dimensional_convolutions() -> None:
    up = nn.Sequential(
        nn.Conv2d(2, 8, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 12, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, 3),
    )
    line = nn.Sequential(
        nn.Conv1d(4, 8, 3),
        nn.ReLU(),
        nn.ConvTranspose1d(8, 6, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(114, 3),
    )
    for network, shape in ((up, (2, 8, 8)), (line, (4, 8))):
        example = torch.randn(2, *shape)
        sizes = Sizes(dependencies(trace(network.eval(), example)))
        full = {group.name: group.size for group in sizes.groups}
        assert len(full) == 2
        assert sizes.measure(full, "macs") == cost(network, example).macs


def test_scope_says_whether_layers_are_compared() -> None:
    """One layer's units are all worth less than another's: alone in its layer it loses no more than the rest."""
    network, task = small_cnn(), image_task()
    with torch.no_grad():
        network.conv1.weight[:] = (
            torch.rand_like(network.conv1.weight) ** 8
        )  # a few units hold most of the sum
        network.conv2.weight[:] = 1.0
    kept = {}
    for scope in ("global", "layer"):
        small = Prune(importance="magnitude", scope=scope, ratio=0.4, of="units", epochs=0, round_to=1)(
            network, task, Budget()
        )
        kept[scope] = small.conv1.out_channels / 16, small.conv2.out_channels / 32
    assert kept["layer"] == pytest.approx((0.6, 0.6), abs=0.05)
    assert kept["global"][0] < 0.45
    assert kept["global"][1] > 0.65


def test_in_steps_and_within_the_budget() -> None:
    network, task = small_cnn(), image_task()
    method = Prune(steps=3, ratio=0.6, epochs=3, batch_size=32, samples=32, round_to=1)
    small = method(network, task, Budget(epochs=2))
    assert cost(small, task.example(1)).macs <= 0.4 * cost(network, task.example(1)).macs
    quick = method(network, task, Budget(epochs=0))
    assert cost(quick, task.example(1)).macs <= 0.4 * cost(network, task.example(1)).macs


def test_what_cannot_be_pruned_is_refused() -> None:
    x, y = torch.randn(90, 6), torch.arange(90) % 3
    with pytest.raises(NotApplicable, match="no unit"):
        Prune()(nn.Linear(6, 3), Task.from_arrays(x, y), Budget())
    for wrong in (Prune(ratio=0.0), Prune(ratio=1.0), Prune(steps=0), Prune(importance="gut")):
        with pytest.raises(BadInput):
            wrong(nn.Linear(6, 3), Task.from_arrays(x, y), Budget())
