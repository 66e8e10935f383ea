import copy

import numpy as np
import pytest
import torch
from torch import nn

from netwright.compress.distillation import Distillation
from netwright.compress.dynamic_int8 import DynamicInt8
from netwright.compress.rethink import Rethink
from netwright.compress.static_int8 import StaticInt8
from netwright.compress.taylor_pruning import TaylorPruning
from netwright.core import progress
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NetwrightError, NotApplicable
from netwright.core.files.export import export
from netwright.core.files.load import load
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import call
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised


def task_of(kind="classification", n=600, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8)).astype(np.float32)
    w = rng.normal(size=(8, 3))
    if kind == "classification":
        return Task.from_arrays(x, (x @ w).argmax(1))
    if kind == "multilabel":
        return Task.from_arrays(x, (x @ w > 0).astype(int))
    return Task.from_arrays(x, (x @ w[:, 0]).astype(np.float32))


def network(outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, outputs)
    )


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize(("optimiser", "lr"), [("adamw", 1e-2), ("sgd", 5e-2)])
def test_it_learns_every_kind_of_task(kind, optimiser, lr):
    task = task_of(kind)
    net = network(task.outputs)
    Fit(epochs=15, batch_size=32, optimiser=optimiser, lr=lr)(net, task)
    assert evaluate(net, task)[task.primary] > 0.88
    assert not net.training


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "steps", "constant"])
def test_learning_rate_follows_its_schedule(schedule):
    rates = []
    net = network()
    fit = Fit(epochs=4, batch_size=105, lr=0.1, schedule=schedule, optimiser="sgd")
    fit(net, task_of(), on_step=lambda s: rates.append(s.optimiser.param_groups[0]["lr"]))
    t = np.arange(16) / 16
    expected = {
        "cosine": 0.05 * (1 + np.cos(np.pi * t)),
        "one-cycle": np.where(t < 0.3, 0.1 * t / 0.3, 0.05 * (1 + np.cos(np.pi * (t - 0.3) / 0.7))),
        "steps": 0.1 * np.where(t < 0.5, 1, np.where(t < 0.75, 0.1, 0.01)),
        "constant": np.full(16, 0.1),
    }[schedule]
    np.testing.assert_allclose(rates, expected, atol=1e-9)


def test_the_same_seed_gives_the_same_network():
    task, runs = task_of(), []
    for seed in (1, 1, 2):
        net = network()
        Fit(epochs=2, seed=seed)(net, task)
        runs.append(net)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    Fit(epochs=1)(network(seed=5), task_of())
    torch.manual_seed(5)
    assert torch.rand(1) == expected


def test_label_smoothing_matches_torch():
    task, logits, y = task_of(), torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = nn.CrossEntropyLoss(label_smoothing=0.2)(logits, y)
    torch.testing.assert_close(task.loss(logits, y, 0.2), expected)


def test_budget_in_epochs_samples_and_seconds_ends_the_training():
    task = task_of()
    assert len(Fit(epochs=50)(network(), task, Budget(epochs=2)).rows) == 2
    history = Fit(epochs=50, batch_size=20)(network(), task, Budget(samples=100))
    assert history.samples == 100
    assert history.stopped == "budget"
    assert len(Fit(epochs=10**6)(network(), task, Budget(seconds=0.5)).rows) < 10**5


def test_a_time_limit_squeezes_the_schedule_to_its_end():
    rates = []
    Fit(epochs=10**5, lr=1.0, optimiser="sgd", batch_size=64)(
        network(), task_of("regression"), Budget(seconds=1.0),
        loss=lambda net, x, y: 0 * call(net, x).mean(),
        on_step=lambda s: rates.append(s.optimiser.param_groups[0]["lr"]),
    )  # fmt: skip
    assert rates[-1] < 0.05


def test_a_leftover_example_does_not_stop_a_batch_norm():
    """65 training examples in batches of 32 leave one, which a batch norm cannot be trained on."""
    x, y = np.random.default_rng(0).normal(size=(65, 8)).astype(np.float32), np.arange(65) % 3
    task = Task.from_arrays(x, y, val=(x, y), test=(x, y))
    net, seen = network(), []
    Fit(epochs=2, batch_size=32)(net, task, on_step=lambda state: seen.append(state.step))
    assert seen == [1, 2, 4, 5], "the step that was left out counts in the schedule"
    linear = nn.Linear(8, 3)
    Fit(epochs=1, batch_size=1)(linear, task, on_step=lambda state: seen.append(-state.step))
    assert seen[4:] == [-1 - i for i in range(65)]


def test_early_stopping_restores_the_best_weights():
    task, net, states = task_of(), network(), []
    scores = iter([0.5, 0.9, 0.6, 0.7, 0.8])
    history = Fit(epochs=20, patience=2)(
        net, task, validate=lambda n: (states.append(copy.deepcopy(n)), {"accuracy": next(scores)})[1]
    )
    assert history.stopped == "no improvement"
    assert len(history.rows) == 4
    assert same(net, states[1])


def test_a_checkpoint_continues_bit_for_bit(tmp_path):
    task, path = task_of(), tmp_path / "run.safetensors"
    whole = network()
    Fit(epochs=6, patience=10, schedule="constant")(whole, task)

    class Crash(Exception): ...

    def crash(state):
        if state.epoch == 4:
            raise Crash

    parts = network()
    with pytest.raises(Crash):
        Fit(epochs=6, patience=10, schedule="constant", checkpoint=str(path))(parts, task, on_epoch=crash)
    fresh = network(seed=9)
    Fit(epochs=6, patience=10, schedule="constant", checkpoint=str(path))(fresh, task)
    assert same(fresh, whole)


def test_hooks_losses_and_batches_are_used():
    task, net = task_of(), network()
    seen = []
    history = Fit(epochs=3)(
        net, task, batches=lambda epoch: task.train.select(torch.arange(epoch + 1)).batches(8),
        loss=lambda n, x, y: (seen.append(len(y)), n(torch.cat([x, x])).pow(2).mean())[1],
        parameters=[net[4].bias],
    )  # fmt: skip
    assert seen[:3] == [1, 2, 3]
    assert history.samples == sum(seen)


def test_only_the_given_parameters_change():
    task, net = task_of(), network()
    before = copy.deepcopy(net)
    Fit(epochs=1)(net, task, parameters=[net[4].weight])
    assert torch.equal(net[0].weight, before[0].weight)
    assert not torch.equal(net[4].weight, before[4].weight)


def test_augmentation_is_applied_in_training_only():
    task = task_of()
    calls = []
    task = Task(**{**task.__dict__, "augment": lambda x, g: (calls.append(len(x)), x)[1]})
    net = network()
    Fit(epochs=1, batch_size=10**6)(net, task)
    evaluate(net, task)
    assert calls == [len(task.train)]


@pytest.mark.parametrize(
    ("fit", "error", "message"),
    [
        (Fit(optimiser="lion"), BadInput, "adamw or sgd"),
        (Fit(schedule="sine"), BadInput, "cosine"),
        (Fit(patience=0), BadInput, "at least 1"),
        (Fit(lr=1e30, optimiser="sgd"), NetwrightError, "lower the learning rate"),
    ],
)
def test_bad_settings_are_clear(fit, error, message):
    with pytest.raises(error, match=message):
        fit(network(), task_of())


def test_nothing_to_train_is_an_error():
    net = network().requires_grad_(False)
    with pytest.raises(NetwrightError, match="nothing to train"):
        Fit()(net, task_of())


@pytest.mark.parametrize("static", [True, False])
def test_an_8_bit_network_read_from_its_file_is_not_trained(static, tmp_path):
    """Its float tensors cannot learn past the roundings; what has to train it says so, in one line."""
    task = task_of(n=60)
    net = nn.Sequential(nn.Linear(8, 12), nn.LayerNorm(12), nn.Linear(12, 3)).eval()
    small = (StaticInt8() if static else DynamicInt8())(net, task, Budget())
    export(small, task.example(2), tmp_path / "m.pt2")
    again = load(tmp_path / "m.pt2")
    with pytest.raises(NotApplicable, match="8-bit integers, which cannot be trained"):
        Fit(epochs=1)(again, task)
    with pytest.raises(NotApplicable, match="8-bit integers, which cannot be trained"):
        reinitialised(again, seed=0)
    for method in (Distillation(epochs=1), TaylorPruning(), Rethink(epochs=1)):
        with pytest.raises(NotApplicable):
            method(again, task, Budget(epochs=1))


def test_a_training_that_hardly_began_says_so():
    with progress.remarks() as said:
        Fit(epochs=3, batch_size=60)(network(), task_of(), Budget(samples=60))
        Fit(epochs=3)(network(), task_of(), Budget(epochs=2))
    assert said == ["the budget ended its training after 0.14 of a pass over the data"]
