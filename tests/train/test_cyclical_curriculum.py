import numpy as np
import pytest
import torch
from torch import nn

from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised
from netwright.train import cyclical_curriculum as module
from netwright.train.cyclical_curriculum import CyclicalCurriculum, draw, example_losses, sizes


def task_of(n=400, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    return Task.from_arrays(x, (x @ rng.normal(size=(6, 3))).argmax(1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))


def test_the_paper_s_cycle_of_sizes():
    assert sizes(5.0) == [0.25, 0.5, 1, 0.5, 0.25, 0.5, 1, 0.5, 0.25, 0.25]
    assert sum(sizes(7.3)) == pytest.approx(7.3)
    assert sizes(3.0, cycle="grow") == [0.25, 0.5, 1, 1, 0.25]
    assert sizes(2.5, cycle="shrink") == [1, 0.5, 0.25, 0.25, 0.25, 0.25]
    assert sizes(4.5, cycle="sharp") == [0.25, 0.5, 1, 0.25, 0.5, 1, 0.25, 0.5, 0.25]
    assert sizes(3.0, full_first=True) == [1, 0.5, 0.25, 0.5, 0.75]
    assert sizes(3.0, cycle="sharp", full_first=True) == [1, 0.25, 0.5, 1, 0.25]
    assert sizes(3.0, cycle="grow", full_first=True) == sizes(3.0, cycle="grow")
    assert sizes(3.0, start=1.0) == sizes(3.0, start=1.0, cycle="sharp") == [1, 1, 1]
    with pytest.raises(BadInput, match="start"):
        sizes(5, start=0)


def test_weighted_draws_without_replacement_have_the_exact_probabilities():
    """Inclusion of each example when 2 of 4 are drawn one after the other, in closed form."""
    w = np.array([1.0, 2.0, 3.0, 4.0])
    p = w / w.sum()
    expected = [p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i) for i in range(4)]
    counts = np.zeros(4)
    for seed in range(4000):
        chosen = draw(torch.tensor(w), 2, seed)
        assert len(set(chosen.tolist())) == 2
        counts[chosen.numpy()] += 1
    np.testing.assert_allclose(counts / 4000, expected, atol=0.025)


def test_rounds_have_the_planned_sizes_and_prefer_easy_examples(monkeypatch):
    task = task_of()
    seen = []
    select = type(task.train).select
    monkeypatch.setattr(type(task.train), "select", lambda s, i: (seen.append(i), select(s, i))[1])
    CyclicalCurriculum(epochs=12, fit=Fit(lr=3e-2))(network(), task, Budget())
    n = len(task.train)
    assert [len(i) for i in seen[1:]] == [round(s * n) for s in sizes(12)]
    scorer = network()
    Fit(epochs=12, lr=3e-2)(scorer, task)
    losses = example_losses(scorer, task)
    small = torch.cat([i for i in seen[1:] if len(i) < 0.3 * n])
    assert losses[small].mean() < 0.8 * losses.mean()


def test_both_trainings_are_charged_to_the_budget(monkeypatch):
    task, spent, planned = task_of(), [], []
    original = Fit.__call__

    def spy(self, *args, **kwargs):
        history = original(self, *args, **kwargs)
        spent.append(kwargs["meter"].epochs)
        planned.append(self.epochs)
        return history

    monkeypatch.setattr(Fit, "__call__", spy)
    CyclicalCurriculum(epochs=50, fit=Fit())(network(), task, Budget(epochs=6))
    assert spent == pytest.approx([3, 6], abs=0.1)
    assert planned == pytest.approx([3, 3])  # schedules end with the budget


@pytest.mark.parametrize("limit", [{"samples": 1500}, {"epochs": 6}, {"samples": 1500, "epochs": 20}])
def test_no_kind_of_budget_is_spent_on_the_scores_alone(monkeypatch, limit):
    """The second network trains too, on about what the scores left, and no more is spent than there is."""
    task, runs, meters = task_of(300), [], []
    original, begin = Fit.__call__, Budget.start

    def spy(self, net, *args, **kwargs):
        before = kwargs["meter"].samples
        history = original(self, net, *args, **kwargs)
        runs.append(kwargs["meter"].samples - before)
        return history

    monkeypatch.setattr(Fit, "__call__", spy)
    monkeypatch.setattr(Budget, "start", lambda self: (meters.append(begin(self)), meters[-1])[1])
    method = CyclicalCurriculum(epochs=10, fit=Fit(lr=1e-2, batch_size=30, schedule="constant"))
    trained = method(network(), task, Budget(**limit))
    n = len(task.train)
    first, second = runs
    assert abs(first - second) <= 30
    assert meters[0].samples == first + n + second
    if "samples" in limit:
        assert limit["samples"] <= meters[0].samples < limit["samples"] + 30
    assert any(
        not torch.equal(a, b)
        for a, b in zip(trained.parameters(), reinitialised(network(), 1).parameters(), strict=True)
    )


def test_losses_of_each_kind_of_task_are_one_number_for_each_example():
    x, labels, values = torch.randn(60, 4), (torch.rand(60, 3) > 0.5).long(), torch.randn(60, 2)
    one = torch.nn.Linear(4, 3).eval()
    task = Task.from_arrays(x, labels, kind="multilabel")
    inputs, targets = next(iter(task.train.batches(1000)))
    p = one(inputs).sigmoid()
    expected = -torch.where(targets == 1, p, 1 - p).log().sum(1) / 3
    assert torch.allclose(example_losses(one, task), expected, atol=1e-5)
    two = torch.nn.Linear(4, 2).eval()
    task = Task.from_arrays(x, values)
    inputs, targets = next(iter(task.train.batches(1000)))
    assert torch.allclose(example_losses(two, task), ((two(inputs) - targets) ** 2).sum(1) / 2, atol=1e-5)


def test_a_budget_that_cannot_score_the_examples_is_refused():
    with pytest.raises(NotApplicable, match="score"):
        CyclicalCurriculum()(network(), task_of(), Budget(samples=100))


def test_it_learns_and_repeats():
    task = task_of()
    method = CyclicalCurriculum(epochs=12, fit=Fit(lr=1e-2, schedule="constant", batch_size=32))
    first, second = (method(network(), task, Budget()) for _ in range(2))
    assert evaluate(first, task)["accuracy"] > 0.85
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_rescoring_asks_the_network_that_learns_before_every_round_and_pays_for_it(monkeypatch):
    task, scored, chosen, fits, meters = task_of(), [], [], [], []
    n, select, original, begin = len(task.train), type(task.train).select, Fit.__call__, Budget.start
    losses_of = module.example_losses

    def scoring(network, task):
        losses = losses_of(network, task)
        scored.append(losses)
        return losses

    monkeypatch.setattr(module, "example_losses", scoring)
    monkeypatch.setattr(type(task.train), "select", lambda s, i: (chosen.append(i), select(s, i))[1])
    monkeypatch.setattr(Fit, "__call__", lambda self, *a, **k: (fits.append(1), original(self, *a, **k))[1])
    monkeypatch.setattr(Budget, "start", lambda self: (meters.append(begin(self)), meters[-1])[1])
    method = CyclicalCurriculum(epochs=8, fit=Fit(lr=3e-2, schedule="constant"), rescore=True)
    trained = method(network(), task, Budget())
    rounds = [round(size * n) for size in sizes(8, full_first=True)]
    assert len(fits) == 1  # no first training
    assert [len(i) for i in chosen[1:]] == rounds
    assert len(scored) == len(rounds)
    assert meters[0].samples == sum(rounds) + len(rounds) * n
    assert scored[-1].mean() < 0.8 * scored[0].mean()  # by the network as it is then
    for index, (losses, picked) in enumerate(zip(scored, chosen[1:], strict=True)):
        easy = 1 / losses.maximum(torch.quantile(losses, 0.05))
        assert torch.equal(picked, draw(easy, len(picked), seed=index))
    assert evaluate(trained, task)["accuracy"] > 0.8
    with pytest.raises(BadInput, match="random"):
        CyclicalCurriculum(order="random", rescore=True)(network(), task, Budget())
    with pytest.raises(NotApplicable, match="score"):
        CyclicalCurriculum(rescore=True)(network(), task, Budget(samples=100))
