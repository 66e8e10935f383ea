import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from netwright.core.budget import Budget
from netwright.core.errors import NotApplicable
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised
from netwright.train.rankmixup import RankMixup, mix, mixup_ranking_loss, ndcg_loss


def confidence(logits):
    e = [math.exp(v) for v in logits]
    return max(e) / sum(e)


def test_ndcg_loss_equals_the_formula_computed_by_hand():
    rng = np.random.default_rng(0)
    raw, mixed = rng.normal(size=(5, 4)), rng.normal(size=(3, 5, 4))
    weights = rng.uniform(0.5, 1, size=(3, 5))
    expected = []
    for b in range(5):
        ranked = sorted(((weights[k, b], confidence(mixed[k, b])) for k in range(3)), key=lambda p: -p[0])
        labels, gains = zip(*[(1.0, confidence(raw[b])), *ranked], strict=True)
        dcg = sum(g / math.log2(i + 2) for i, g in enumerate(gains))
        q = dcg / sum(v / math.log2(i + 2) for i, v in enumerate(labels))
        expected.append(1 - (q if q <= 1 else 1 / q))
    ours = ndcg_loss(torch.tensor(raw), list(torch.tensor(mixed)), list(torch.tensor(weights)))
    assert ours.item() == pytest.approx(np.mean(expected), abs=1e-12)


def test_ndcg_loss_is_zero_where_confidence_equals_the_label_weight():
    logits = lambda c: torch.tensor([[math.log(c), math.log(1 - c)]], dtype=torch.float64)
    raw = torch.tensor([[50.0, -50.0]], dtype=torch.float64)
    loss = ndcg_loss(raw, [logits(0.7), logits(0.9)], [torch.tensor([0.7]), torch.tensor([0.9])])
    assert loss.item() == pytest.approx(0, abs=1e-7)


def test_a_confidence_above_its_label_weight_costs_too():
    raw = torch.tensor([[50.0, -50.0]], dtype=torch.float64)
    assert ndcg_loss(raw, [raw], [torch.tensor([0.6])]).item() > 0.1


def test_ranking_loss_takes_logits_and_leaves_out_labels_that_are_not_mixed():
    raw, mixed = torch.tensor([[3.0, 0], [1, 0], [5, 9]]), torch.tensor([[2.0, 0], [0, 4], [0, 8]])
    weight = torch.tensor([0.6, 0.6, 1.0])
    expected = (max(0, 2 + 2 - 3) + max(0, 2 + 4 - 1)) / 3
    assert mixup_ranking_loss(raw, mixed, weight, 2.0).item() == pytest.approx(expected)


def test_mixing_is_convex_and_knows_its_label_weight():
    x, y = torch.eye(6), torch.tensor([0, 0, 0, 1, 2, 3])
    m = mix(x, y, 2.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(m.inputs.sum(1), torch.ones(6))
    for row, weight, label in zip(m.inputs, m.label_weight, y, strict=True):
        own, partner = row[: len(y)], row.clone()
        partner_index = int(partner.argsort(descending=True)[0])
        same = all(y[j] == label for j in torch.nonzero(own).flatten().tolist())
        assert weight == (1.0 if same else pytest.approx(row.max().item(), abs=1e-6)), partner_index


def test_mixing_weights_follow_their_beta_law():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(2)
    draws = np.array([mix(torch.eye(2), y, 2.0, g).label_weight[0].item() for _ in range(3000)])
    draws = draws[draws < 1]
    # E max(s, 1 - s) for Beta(2, 2) is 11/16
    assert draws.mean() == pytest.approx(11 / 16, abs=0.01)


def task_of(n=500):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    noise = rng.random(n) < 0.15
    y = (x @ rng.normal(size=(6, 3))).argmax(1)
    y[noise] = rng.integers(0, 3, noise.sum())
    return Task.from_arrays(x, y)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 3))


def ranking(net, task, loss):
    """The ranking loss on fresh mixes of the validation examples."""
    x, y = task.val.inputs[0], task.val.targets
    g, total = torch.Generator().manual_seed(1), 0.0
    with torch.no_grad():
        for _ in range(30):
            m = mix(x, y, 2.0, g)
            if loss == "mrl":
                total += mixup_ranking_loss(net(x), net(m.inputs), m.label_weight, 2.0).item()
            else:
                total += ndcg_loss(net(x), [net(m.inputs)], [m.label_weight]).item()
    return total


@pytest.mark.parametrize("loss", ["mrl", "mndcg"])
def test_it_orders_confidence_on_unseen_mixes_better_than_cross_entropy(loss):
    task = task_of()
    fit = Fit(epochs=30, optimiser="sgd", lr=0.05, batch_size=64)
    plain = network()
    fit(plain, task)
    method = RankMixup(loss=loss, weight=3.0, fit=fit)
    ours, again = method(network(), task, Budget()), method(network(), task, Budget())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True))
    assert evaluate(ours, task)["accuracy"] > 0.7
    assert ranking(ours, task, loss) < 0.9 * ranking(plain, task, loss)


@pytest.mark.parametrize(("loss", "passes"), [("mrl", 2), ("mndcg", 4)])
def test_mixed_examples_are_charged_as_raw_ones_are(monkeypatch, loss, passes):
    task, begin, meters, seen = task_of(), Budget.start, [], []
    monkeypatch.setattr(Budget, "start", lambda self: (meters.append(begin(self)), meters[-1])[1])
    net = network()
    forward = type(net).forward
    monkeypatch.setattr(type(net), "forward", lambda s, x: (seen.append(len(x)), forward(s, x))[1])
    fit = Fit(epochs=30, optimiser="sgd", lr=0.05, batch_size=50)
    RankMixup(loss=loss, fit=fit)(net, task, Budget(samples=2000))
    assert meters[0].samples == sum(seen)
    assert 2000 <= sum(seen) < 2000 + passes * 50
    assert meters[0].epochs == pytest.approx(sum(seen) / passes / len(task.train))


def test_it_says_what_it_cannot_serve():
    x = np.zeros((40, 6), np.float32)
    with pytest.raises(NotApplicable, match="regression"):
        RankMixup()(network(), Task.from_arrays(x, np.linspace(0, 1, 40)), Budget())
    tokens = Task.from_arrays(np.ones((40, 6), int), np.arange(40) % 2)
    with pytest.raises(NotApplicable, match="token"):
        RankMixup()(network(), tokens, Budget())


class Seen(nn.Module):
    """A linear network without batch norm that keeps what it was given while it learned."""

    def __init__(self):
        super().__init__()
        self.linear, self.batches = nn.Linear(6, 3), []

    def forward(self, x):
        if self.training:
            self.batches.append(x.detach().clone())
        return self.linear(x)


@pytest.mark.parametrize("loss", ["mrl", "mndcg"])
def test_one_step_goes_down_the_gradient_of_the_loss_as_it_is_defined(loss):
    """From the batches that the network saw: three different mixes, gradients through raw and mixed answers."""
    task = task_of()
    fit = Fit(
        epochs=1, optimiser="sgd", lr=0.5, batch_size=len(task.train), schedule="constant", weight_decay=0.0
    )
    torch.manual_seed(0)
    given = Seen()
    found = RankMixup(loss=loss, weight=2.0, fit=replace(fit, clip=None), seed=3)(given, task, Budget())
    raw, together = found.batches
    copies = 1 if loss == "mrl" else 3
    mixes = together.chunk(copies)
    assert together.shape[0] == copies * raw.shape[0]
    assert all(not torch.equal(a, b) for a, b in combinations(mixes, 2))
    x, y = task.train.inputs[0], task.train.targets
    targets = y[(raw[:, None] == x[None]).all(2).int().argmax(1)]
    generator = torch.Generator().manual_seed(3)
    drawn = [mix(raw, targets, 2.0, generator) for _ in range(copies)]
    for seen, expected in zip(mixes, drawn, strict=True):
        torch.testing.assert_close(seen, expected.inputs)
    start = reinitialised(given, 3).linear
    weight, bias = start.weight.detach().double(), start.bias.detach().double()

    def objective(weight, bias):
        answer = lambda z: z.double() @ weight.T + bias
        top = lambda z: answer(z).softmax(1).amax(1)
        cross = -answer(raw).log_softmax(1)[torch.arange(len(raw)), targets].mean()
        shares = torch.stack([m.label_weight.double() for m in drawn], 1)
        if loss == "mrl":
            gap = (2.0 + answer(mixes[0]).amax(1) - answer(raw).amax(1)).clamp_min(0)
            return cross + 2.0 * (gap * (shares[:, 0] < 1)).mean()
        total = 0
        for i in range(len(raw)):
            order = sorted(range(3), key=lambda k: -shares[i, k])
            gains = [top(raw[i : i + 1]), *(top(mixes[k][i : i + 1]) for k in order)]
            ideal = [1.0, *(shares[i, k].item() for k in order)]
            q = sum(g / math.log2(j + 2) for j, g in enumerate(gains)) / sum(
                v / math.log2(j + 2) for j, v in enumerate(ideal)
            )
            total = total + 1 - (q if q <= 1 else 1 / q)
        return cross + 2.0 * (total / len(raw)).squeeze()

    gradients = torch.func.grad(objective, argnums=(0, 1))(weight, bias)
    torch.testing.assert_close(
        found.linear.weight.double(), weight - 0.5 * gradients[0], atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(found.linear.bias.double(), bias - 0.5 * gradients[1], atol=1e-5, rtol=1e-4)


def test_the_running_statistics_are_those_of_one_raw_and_one_mixed_pass():
    task = task_of()
    fit = Fit(epochs=1, optimiser="sgd", lr=0.0, batch_size=len(task.train), schedule="constant", clip=None)
    given = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))
    spy = []
    given[0].register_forward_pre_hook(lambda module, args: spy.append(args[0].detach()))
    found = RankMixup(fit=fit)(given, task, Budget())
    raw, mixed = spy[:2]
    expected = 0.9 * (0.1 * raw.var(0) + 0.9) + 0.1 * mixed.var(0)
    torch.testing.assert_close(found[0].running_var, expected, atol=1e-5, rtol=1e-4)
