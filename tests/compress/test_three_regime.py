"""Lines between networks, likeness of outputs, sharpness-aware steps, and what is chosen by them."""

import copy

import pytest
import torch
from torch import nn

from netwright.compress.three_regime import Regimes, ThreeRegime, landscape, method
from netwright.compress.three_regime.heat import Heat, Sharpness
from netwright.compress.three_regime.landscape import (
    connectivity,
    error_of,
    interpolated,
    linear_cka,
    output_similarity,
)
from netwright.compress.three_regime.pairs import Cuts, Pruned, pruned, same_share
from netwright.compress.three_regime.regimes import found, right
from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.task import Task

SHORT = Fit(epochs=2, lr=1e-2, batch_size=64)


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    x = torch.randn(900, 8)
    task = Task.from_arrays(x, x[:, :4].argmax(1))
    network = nn.Sequential(
        nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    Fit(epochs=12, lr=1e-2, batch_size=64)(network, task)
    return network, task


def permuted(network: nn.Module) -> nn.Module:
    """The same function, its second hidden layer's units in another order."""
    other, order = copy.deepcopy(network), torch.arange(15, -1, -1)
    with torch.no_grad():
        other[3].weight.copy_(network[3].weight[order])
        other[3].bias.copy_(network[3].bias[order])
        other[5].weight.copy_(network[5].weight[:, order])
    return other


def test_a_permuted_network_lies_behind_a_barrier_and_a_copy_does_not(problem) -> None:
    network, task = problem
    other = permuted(network)
    x = task.example(50)
    assert torch.allclose(network(*x), other(*x), atol=1e-4)
    line = connectivity(network, other, task, 11, 512)
    assert len(line.errors) == 11
    assert line.errors[0] == pytest.approx(line.errors[-1], abs=0.02)
    assert line.lmc < -0.1
    assert max(line.errors) == pytest.approx((line.errors[0] + line.errors[-1]) / 2 - line.lmc)
    same = connectivity(network, copy.deepcopy(network), task, 5, 512)
    assert same.lmc == 0
    assert output_similarity(network, other, task.train, 300) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("errors", "lmc"), [((0.2, 0.5, 0.1, 0.3), -0.25), ((0.4, 0.1, 0.35, 0.4), 0.3), ((0.2, 0.28, 0.4), 0.1)]
)
def test_the_farthest_point_decides_whichever_side_it_lies_on(problem, monkeypatch, errors, lmc) -> None:
    network, task = problem
    told = iter(errors)
    monkeypatch.setattr(landscape, "error_of", lambda *_: next(told))
    assert connectivity(network, network, task, len(errors), 64).lmc == pytest.approx(lmc)


def test_batch_statistics_are_measured_anew_on_the_line(problem) -> None:
    network, task = problem
    broken = copy.deepcopy(network)
    broken[1].running_mean += 100.0
    assert error_of(broken, task) > 0.4
    assert max(connectivity(broken, broken, task, 3, 512).errors) < 0.2
    assert (broken[1].running_mean > 50).all()  # the given one stays


def test_the_line_is_straight(problem) -> None:
    network, _ = problem
    other = permuted(network)
    between = interpolated(network, other, 0.25)
    assert torch.allclose(between[3].weight, 0.75 * network[3].weight + 0.25 * other[3].weight)


def test_cka_is_its_definition_by_gram_matrices() -> None:
    x, y = torch.randn(60, 5).double(), torch.randn(60, 3).double()
    y[:, 0] += x[:, 1]
    centre = torch.eye(60).double() - 1 / 60
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    assert linear_cka(x, y) == pytest.approx(float((k * m).sum() / (k.norm() * m.norm())))
    turn = torch.linalg.qr(torch.randn(5, 5).double())[0]
    assert linear_cka(x, 3 * x @ turn + 7) == pytest.approx(1.0)
    assert linear_cka(x, torch.ones(60, 2).double()) == 0


def test_errors_of_classes_and_of_values(problem) -> None:
    network, task = problem
    assert error_of(network, task, "test") == pytest.approx(1 - evaluate(network, task, "test")["accuracy"])
    x = torch.randn(100, 3)
    values = Task.from_arrays(x, x.sum(1, keepdim=True))
    zero = nn.Linear(3, 1)
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    targets = torch.cat([y for _, y in values.val.batches(1000)])
    assert error_of(zero, values) == pytest.approx(float(targets.square().mean()), rel=1e-4)


def test_a_sharpness_aware_step_is_its_formula() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 3)
    task = Task.from_arrays(x, torch.arange(40) % 2)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    by_hand = copy.deepcopy(network).double()
    batch = next(iter(task.train.batches(16)))
    once = Fit(epochs=1, optimiser="sgd", lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant")
    sharp = Sharpness(task, 0.3)
    once(network, task, loss=sharp.loss, on_step=sharp.back, batches=lambda _: [batch], steps=1)

    by_hand.train()
    loss = lambda: nn.functional.cross_entropy(by_hand(batch[0].double()), batch[1])
    weights = list(by_hand.parameters())
    slopes = torch.autograd.grad(loss(), weights)
    mean, var = by_hand[1].running_mean.clone(), by_hand[1].running_var.clone()  # after one pass
    size = torch.cat([s.flatten() for s in slopes]).norm()
    start = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for w, s in zip(weights, slopes, strict=True):
            w.add_(0.3 * s / size)
    again = torch.autograd.grad(loss(), weights)
    for got, w, s in zip(network.parameters(), start, again, strict=True):
        assert torch.allclose(got.double(), w - 0.1 * s, atol=1e-6)
    assert torch.allclose(network[1].running_mean.double(), mean, atol=1e-6)
    assert torch.allclose(network[1].running_var.double(), var, atol=1e-6)
    assert network[1].momentum == 0.1
    assert not sharp.moved


def test_temperatures(monkeypatch, problem) -> None:
    network, task = problem
    trained, original = [], Fit.__call__
    spy = lambda self, *a, **k: (trained.append((self, k)), original(self, *a, **k))[1]
    monkeypatch.setattr(Fit, "__call__", spy)
    for heat in (Heat("epochs", 1), Heat("batch", 50), Heat("rho", 0.1)):
        heat.train(copy.deepcopy(network), task, SHORT, Budget(epochs=1))
    fits = [fit for fit, _ in trained]
    assert [fit.epochs for fit in fits] == [1, 2, 2]
    assert [fit.batch_size for fit in fits] == [64, 50, 64]
    assert [bool(k) for _, k in trained] == [False, False, True]
    assert Heat("epochs", 5).hotness > Heat("epochs", 9).hotness
    assert Heat("batch", 5).hotness > Heat("batch", 9).hotness
    assert Heat("rho", 5).hotness < Heat("rho", 9).hotness
    for knob, value in (("light", 1), ("rho", 0)):
        with pytest.raises(BadInput):
            Heat(knob, value)


def test_the_same_share_of_every_layer_stays_the_largest(problem) -> None:
    network, _ = problem
    masks = same_share(network, 0.3)
    assert set(masks) == {"0", "3"}
    for name, mask in masks.items():
        size = network.get_submodule(name).weight.abs()
        assert int(mask.sum()) == round(0.3 * size.numel())
        assert size[mask == 1].min() >= size[mask == 0].max()


def test_one_mask_several_trainings_and_means_over_pairs(problem, monkeypatch) -> None:
    network, task = problem
    parts = []
    run = lambda training: parts.append(training(Budget()))
    made = pruned(network, task, 0.3, SHORT, (0, 1, 2), run, points=3, examples=128)
    assert len(parts) == len(made.networks) == 3
    zeros = [net[0].weight == 0 for net in made.networks]
    assert torch.equal(zeros[0], same_share(network, 0.3)["0"] == 0)
    assert torch.equal(zeros[0], zeros[1])
    assert not torch.equal(made.networks[0][0].weight, made.networks[1][0].weight)
    one, two, three = made.networks
    pairs = ((one, two), (one, three), (two, three))
    lines = [connectivity(a, b, task, 3, 128).lmc for a, b in pairs]
    alike = [output_similarity(a, b, task.train, 128) for a, b in pairs]
    assert made.lmc == pytest.approx(sum(lines) / 3)
    assert made.cka == pytest.approx(sum(alike) / 3)
    assert made.error(task, "test") == pytest.approx(
        sum(error_of(n, task, "test") for n in made.networks) / 3
    )


def test_regimes_and_their_advice() -> None:
    cuts = Cuts(barrier=0.02, similar=0.8)
    assert [cuts.regime(*each) for each in ((-0.03, 1.0), (-0.02, 0.79), (0.1, 0.8))] == ["I", "II-A", "II-B"]
    row = lambda hot, density, error, advice: {
        "hotness": hot, "temperature": -hot, "density": density, "error": error, "advice": advice, "regime": "I",
    }  # fmt: skip
    rows = [row(-1, 0.1, 0.2, "hotter"), row(-2, 0.1, 0.3, "hotter"), row(-3, 0.1, 0.4, "colder")]
    assert right(rows) == 1.0  # the ends have nowhere to go
    rows = [row(-1, 0.1, 0.3, "colder"), row(-2, 0.1, 0.2, "as it is"), row(-3, 0.1, 0.25, "colder")]
    assert right(rows) == 1.0
    rows = [row(-1, 0.1, 0.2, "colder"), row(-2, 0.1, 0.3, "as it is")]
    assert right(rows) == 0.0
    told = found(
        [row(-1, 0.1, 0.2, "hotter"), row(-2, 0.1, 0.3, "hotter"), row(-2, 0.5, 0.1, "hotter")], "epochs"
    )
    assert told.figures["best epochs at 10 % of the weights"] == 1
    assert told.figures["best epochs at 50 % of the weights"] == 2
    assert told.figures["cells in I"] == 3
    assert told.sentence.startswith("At 10 % of the weights the best epochs are 1 (error 20.0 %), at 50 %")


def test_the_map_of_a_small_network(problem) -> None:
    network, task = problem
    settings = {"values": (4.0, 1.0), "densities": (0.2, 1.0), "recipe": SHORT, "seeds": (0, 1), "points": 3}
    told = Regimes(**settings, examples=128)(network, task)
    rows = told.table()
    assert [(r["temperature"], r["density"]) for r in rows] == [(4, 0.2), (4, 1.0), (1, 0.2), (1, 1.0)]
    assert rows[1]["error"] < rows[0]["error"]
    assert [list(line) for line in told.plot().data[0].z] == [
        [r["error"] for r in rows[i : i + 2]] for i in (0, 2)
    ]
    again = Regimes(**settings, examples=128)(network, task)
    assert [r["lmc"] for r in again.table()] == [r["lmc"] for r in rows]


@pytest.mark.parametrize(
    ("lines", "alike", "chosen"),
    [
        ((0.0, 0.0, 0.0), (0.5, 0.9, 0.8), 1),
        ((0.0, -0.5, 0.0), (0.5, 0.9, 0.8), 2),
        ((-0.4, -0.2, -0.3), (1, 0, 1), 1),
    ],
)
def test_barriers_are_dropped_and_then_likeness_decides(problem, monkeypatch, lines, alike, chosen) -> None:
    network, task = problem
    made = [
        Pruned((nn.Linear(8, 4), nn.Linear(8, 4)), line, cka) for line, cka in zip(lines, alike, strict=True)
    ]
    given = iter(made)
    monkeypatch.setattr(method, "pruned", lambda *_: next(given))
    result = ThreeRegime(values=(1.0, 2.0), recipe=SHORT)(network, task, Budget(epochs=0))
    assert result is made[chosen].networks[0]


def test_a_budget_is_shared_among_the_trainings(problem, monkeypatch) -> None:
    network, task = problem
    before = {k: v.clone() for k, v in network.state_dict().items()}
    spent, original = [], Fit.__call__

    def spy(self, net, task, budget, **kwargs):
        history = original(self, net, task, budget, **kwargs)
        spent.append(history.samples / len(task.train))
        return history

    monkeypatch.setattr(Fit, "__call__", spy)
    long = Fit(epochs=50, lr=1e-2)
    thin = ThreeRegime(0.3, values=(50.0,), recipe=long, retrain=long, points=3, examples=64)(
        network, task, Budget(epochs=5)
    )
    assert spent == pytest.approx([1.0] * 5, abs=0.1)
    assert float((thin[0].weight != 0).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert set(thin.state_dict()) == set(before)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("settings", [{"density": 0.0}, {"density": 1.1}, {"points": 2}, {"knob": "x"}])
def test_settings_that_make_no_sense(problem, settings) -> None:
    network, task = problem
    with pytest.raises(BadInput):
        ThreeRegime(**settings)(network, task, Budget())
