"""Six networks that are fed wrongly are found; ten that are fed rightly are left alone."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from netwright.app.feeding.fed import ROWS, _affordable, _better, _Score, fed
from netwright.app.feeding.suspicion import gains
from netwright.core.budget import within
from netwright.core.errors import BadInput
from netwright.core.signature import Feature, Input
from netwright.core.split import Normalise
from netwright.core.task import Task


def train(net, x, y, steps=150, lr=1e-2, loss=None, weight=None):
    """The net in evaluation mode, after some steps of Adam on random batches of 128."""
    loss = loss or nn.CrossEntropyLoss(weight=weight)
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters(), lr=lr)
    for _ in range(steps):
        pick = torch.randint(0, len(x), (128,))
        optimiser.zero_grad()
        loss(net(x[pick]), y[pick]).backward()
        optimiser.step()
    return net.eval()


def mlp(features, outputs, width=32):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, outputs))


def cnn(channels=3, outputs=4):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(channels, 12, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(48, outputs),
    )  # fmt: skip


def divided(x, y, **more):
    """A task of arrays, two thirds of them for training."""
    a, b = len(x) * 4 // 6, len(x) * 5 // 6
    return Task.from_arrays(x[:a], y[:a], val=(x[a:b], y[a:b]), test=(x[b:], y[b:]), **more)


@pytest.fixture(scope="module")
def pictures():
    """uint8 pictures (N, 3, 12, 12) of four classes that differ in colour and in where the light is."""
    rng = np.random.default_rng(0)
    y = np.arange(1800) % 4
    x = rng.normal(90, 40, (1800, 3, 12, 12))
    x[y == 0, 0] += 25
    x[y == 1, 2] += 25
    x[y == 2, :, :6] += 18
    x[y == 3, :, :, :6] += 18
    return divided(
        x.clip(0, 255).astype(np.uint8),
        y,
        meaning="image",
        normalise=Normalise([0.4] * 3, [0.17] * 3, 1 / 255),
    )


def learned(task, way=None, flip=False, net=None):
    """A network that learned the task's pictures on a scale (0 to 1 by default) and in an order of its own."""
    x = (way or Normalise([0.0], [1.0], 1 / 255))(task.train.inputs[0])
    return train(net or cnn(), x.flip(1) if flip else x, task.train.targets)


COLUMNS = ("age", "town", "weight", "blood")


@pytest.fixture(scope="module")
def table():
    """Numbers and texts, one-hot in the file's order: age, town (3), weight, blood (4); standardised."""
    rng = np.random.default_rng(1)
    n = 3000
    age, weight = rng.normal(50, 12, n), rng.normal(70, 9, n)
    town, blood = rng.integers(0, 3, n), rng.integers(0, 4, n)
    y = (
        (age - 50) / 12
        + 2.0 * (town == 2)
        - 1.2 * (weight - 70) / 9
        - 1.5 * (blood == 1)
        + rng.normal(0, 0.4, n)
    ) > 0.2
    x = np.concatenate([age[:, None], np.eye(3)[town], weight[:, None], np.eye(4)[blood]], 1).astype(
        np.float32
    )
    features = (
        Feature("age"), *(Feature("town", t) for t in "abc"), Feature("weight"), *(Feature("blood", b) for b in "0ABC"),
    )  # fmt: skip
    task = divided(x, y.astype(np.int64), meaning="table")
    kept = task.train.inputs[0]
    task = task.fed(Normalise(kept.mean(0).tolist(), kept.std(0).tolist()))
    return replace(task, inputs=(Input("input", (9,), features=features),))


def whole(task):
    """All prepared training rows."""
    return next(iter(task.train.batches(10**6)))


def test_a_network_for_another_scale_is_fed_on_that_scale(pictures):
    net = learned(pictures)
    found = fed(net, pictures)
    assert "fed 0 to 1" in found.note
    assert "0 to 1" not in found.warning
    x, y = next(iter(found.task.val.batches(300)))
    assert (net(x).argmax(1) == y).double().mean() > 0.9
    raw = found.task.raw().example(5)[0]
    torch.testing.assert_close(found.task.front(raw), found.task.example(5)[0])
    assert raw.max() > 1.5  # the file takes the data's own scale


def test_a_network_without_normalisation_gets_none(pictures):
    net = learned(pictures, Normalise([0.0], [1.0]), net=nn.Sequential(nn.BatchNorm2d(3), cnn()))
    assert "as they are (0 to 255)" in fed(net, pictures).note


def test_colours_in_the_other_order(pictures):
    found = fed(learned(pictures, pictures.normalise, flip=True), pictures)
    assert "as BGR" in found.note
    assert found.task.normalise.channels == (2, 1, 0)


def test_height_and_width_exchanged(pictures):
    x = pictures.normalise(pictures.train.inputs[0]).transpose(2, 3)
    found = fed(train(cnn(), x, pictures.train.targets), pictures)
    assert "height and width exchanged" in found.note


def test_columns_in_the_network_s_own_order(table):
    order = [0, 4, 1, 2, 3, 5, 6, 7, 8]  # numbers first, as pandas' get_dummies has them
    x, y = whole(table)
    found = fed(train(mlp(9, 2), x[:, order], y), table)
    assert "numbers first, then one-hot" in found.note
    assert [f.column for f in found.task.inputs[0].features[:3]] == ["age", "weight", "town"]
    torch.testing.assert_close(found.task.front(found.task.raw().example(4)[0]), found.task.example(4)[0])


def raw_regression(noise, pull):
    """A table of five raw columns, and a network that standardises inside; `pull` sets how wide the columns are."""
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, (3000, 5))
    y = x[:, 0] + x[:, 1] * x[:, 2] + noise * rng.normal(0, 1, 3000)
    wide, middle = np.array([pull, 2 - pull, 1.0, 1.0, 1.0]), np.array([0.3, 0.4, 0, 0, 0]) * (pull - 1)
    raw = divided((x * wide + middle).astype(np.float32), y.astype(np.float32), meaning="table")
    kept = raw.train.inputs[0]
    inside = Normalise(kept.mean(0).tolist(), kept.std(0).tolist())
    net = train(
        mlp(5, 1), inside(kept), raw.train.targets, steps=600, loss=lambda o, y: (o[:, 0] - y).pow(2).mean()
    )
    return raw, inside, net


@pytest.mark.parametrize("seconds", [60, 0])
def test_a_table_network_that_standardises_inside_is_fed_raw_columns(seconds):
    """Fed standardised ones it is poor, but above suspicion; there is a moment for the look however late it is."""
    raw, inside, net = raw_regression(0.8, 1.6)
    task = raw.fed(inside)
    whole_net = nn.Sequential(inside, net)
    poor = r2(whole_net(task.example(400)[0]), task.val.targets[:400])
    true = r2(whole_net(raw.example(400)[0]), task.val.targets[:400])
    assert 0 < poor < true - 0.1
    with within(seconds):
        found = fed(whole_net, task)
    assert "fed columns as they are" in found.note
    assert "as the task normalises them 0." in found.note
    assert "standardised columns" not in found.note  # each way once
    assert found.task.normalise is None


def r2(outputs, y):
    return (1 - (outputs[:, 0] - y).pow(2).mean() / y.var()).item()


def test_our_own_standardisation_stays_where_the_network_learned_from_it():
    """Columns that are nearly standardised already: the metric cannot tell, the loss does, either way."""
    raw, inside, net = raw_regression(0.8, 1.05)
    left_alone(net, raw.fed(inside))
    assert "columns as they are" in fed(nn.Sequential(inside, net), raw.fed(inside)).note


def test_a_network_that_does_not_mind_takes_a_table_as_it_is(table):
    """It looks at the town alone, whose columns it thresholds."""
    net = nn.Sequential(Each(lambda x: (x[:, [1, 3]] > 0.5).float()))
    assert "fed columns as they are" in fed(net, table).note


class Each(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_the_first_value_of_each_text_dropped(table):
    x, y = whole(table.fed(None))
    kept = [0, 2, 3, 4, 6, 7, 8]
    net = train(nn.Sequential(nn.BatchNorm1d(7), mlp(7, 2)), x[:, kept], y)
    found = fed(net, table)
    assert "first value of each text dropped" in found.note
    assert found.task.input_shape == (7,)


def test_columns_in_an_order_that_nobody_can_guess_stop(table):
    x, y = whole(table)
    shuffled = torch.randperm(9, generator=torch.Generator().manual_seed(5))
    net = train(mlp(9, 2), x[:, shuffled] * 3, y, steps=300)
    plain = replace(table, inputs=())
    scored = (net(plain.example(400)[0]).argmax(1) == next(iter(plain.val.batches(400)))[1]).double().mean()
    assert scored < 0.65
    with pytest.raises(BadInput, match=r"preprocessing is probably not the one.*tried: .*--as-it-is"):
        fed(net, plain)
    went_on = fed(net, plain, as_it_is=True)
    assert "as it is" in went_on.warning
    assert went_on.task is plain


def test_wrong_tokens_stop():
    """The words are numbered by another vocabulary than the network's."""
    rng = np.random.default_rng(0)
    y = np.arange(3000) % 2
    words = rng.integers(0, 40, (3000, 8))
    words[np.arange(3000), rng.integers(0, 8, 3000)] = 40 + y * 10 + rng.integers(0, 10, 3000)
    net = train(
        nn.Sequential(nn.EmbeddingBag(60, 16), nn.Linear(16, 2)), torch.tensor(words), torch.tensor(y)
    )
    right = divided(words, y, meaning="tokens")
    assert fed(net, right) == type(fed(net, right))(right)
    other = rng.permutation(60)[words]
    with pytest.raises(BadInput, match=r"majority class would|log likelihood"):
        fed(net, divided(other, y, meaning="tokens"))


@pytest.fixture(scope="module")
def noise():
    """(x, y, shares): two classes whose means differ by as little or as much as is asked."""

    def make(n, features, apart, share=0.5, seed=0):
        rng = np.random.default_rng(seed)
        y = (rng.random(n) < share).astype(np.int64)
        x = rng.normal(0, 1, (n, features)).astype(np.float32)
        x[:, 0] += apart * y
        return x, y

    return make


def left_alone(net, task):
    found = fed(net, task)
    assert (found.note, found.warning) == ("", "")
    assert found.task is task


def trained_on(task, net, **more):
    x, y = whole(task)
    return train(net, x, y, **more)


def test_overconfident(noise):
    """Sure and wrong: it has learned its rows by heart, and its likelihood elsewhere is far beyond guessing."""
    task = divided(*noise(900, 20, 1.0))
    x, y = whole(task)
    net = nn.Sequential(trained_on(task, mlp(20, 2, 256), steps=400), Times(20.0))
    validation, targets = next(iter(task.val.batches(10**6)))
    assert nn.functional.cross_entropy(net(validation), targets) > 2 * np.log(2)
    assert nn.functional.cross_entropy(net(x), y) < 0.1
    left_alone(net, task)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def test_overconfident_on_rows_that_it_has_never_seen(noise):
    seen, task = divided(*noise(300, 10, 2.0)), divided(*noise(1500, 10, 2.0, seed=7))
    left_alone(nn.Sequential(trained_on(seen, mlp(10, 2, 256), steps=400), Times(30.0)), task)


def test_imbalanced(noise):
    task = divided(*noise(3000, 10, 1.0, share=0.05))
    net = trained_on(task, mlp(10, 2, 8), steps=60)
    x, _ = next(iter(task.val.batches(10**6)))
    assert net(x).argmax(1).sum() <= 3  # it answers the majority
    left_alone(net, task)


def test_imbalanced_and_weighted(noise):
    """Less accurate than the majority class, by design."""
    task = divided(*noise(3000, 10, 0.8, share=0.05))
    left_alone(trained_on(task, mlp(10, 2, 8), weight=torch.tensor([0.05, 0.95])), task)


def test_hard_and_noisy(noise):
    """A little above chance, which many rows show."""
    task = divided(*noise(9000, 10, 0.25))
    net = trained_on(task, nn.Linear(10, 2), lr=1e-3)
    x, y = next(iter(task.val.batches(10**6)))
    assert (net(x).argmax(1) == y).double().mean() < 0.6
    left_alone(net, task)


def test_learned_by_heart_and_knows_nothing(noise):
    task = divided(*noise(600, 30, 0.0))
    left_alone(trained_on(task, mlp(30, 2, 256), steps=300), task)


def test_regression_with_a_low_r2():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (6000, 6)).astype(np.float32)
    y = (0.25 * x[:, 0] + rng.normal(0, 1, 6000)).astype(np.float32)
    task = divided(x, y)
    net = trained_on(task, nn.Linear(6, 1), loss=lambda out, y: (out[:, 0] - y).pow(2).mean())
    left_alone(net, task)


def test_regression_of_a_median():
    """The best median of skewed values has an R2 below 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (6000, 6)).astype(np.float32)
    y = (0.15 * x[:, 0] + rng.exponential(1.0, 6000)).astype(np.float32)
    task = divided(x, y)
    net = trained_on(task, nn.Linear(6, 1), steps=400, loss=lambda out, y: (out[:, 0] - y).abs().mean())
    left_alone(net, task)


def test_two_classes_and_many():
    rng = np.random.default_rng(0)
    for classes in (2, 60):
        centres = rng.normal(0, 1, (classes, 12))
        y = np.arange(6000) % classes
        x = (centres[y] + rng.normal(0, 0.6, (6000, 12))).astype(np.float32)
        task = divided(x, y)
        left_alone(trained_on(task, mlp(12, classes, 64), steps=250), task)


def test_pictures_and_tables_as_the_task_has_them(pictures, table):
    left_alone(trained_on(pictures, cnn()), pictures)
    left_alone(trained_on(table, mlp(9, 2)), table)


def test_values_in_other_units_stop():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (3000, 6)).astype(np.float32)
    y = (1000 + 50 * x[:, 0]).astype(np.float32)
    task = divided(x, y)
    inner, targets = whole(task)
    net = train(
        nn.Linear(6, 1),
        inner,
        (targets - 1000) / 50,
        steps=300,
        loss=lambda o, y: (o[:, 0] - y).pow(2).mean(),
    )
    with pytest.raises(BadInput, match=r"R2.*correlation (0\.9|1\.0)"):
        fed(net, task)


def test_few_rows_tell_nothing(noise):
    left_alone(mlp(10, 2), divided(*noise(60, 10, 1.0)))


@pytest.mark.parametrize("rows", [(300, 256), (256, 300), (300, 300)])
def test_ways_that_saw_fewer_rows_for_want_of_time_are_held_against_the_same_rows(table, rows):
    y = torch.arange(300) % 2
    right, wrong = (torch.nn.functional.one_hot(t).float() for t in (y, 1 - y))
    right[256:] = wrong[256:]  # what only one of them has seen must not count
    scores = [
        _Score(label, table, o[:n], y[:n], gains(o[:n], y[:n], "classification"))
        for label, o, n in (("other", right, rows[0]), ("", wrong, rows[1]))
    ]
    assert _better(scores[1], [scores[0]], 3.0) is scores[0]
    assert _better(scores[0], [scores[1]], 3.0) is None


class Interrupted(nn.Module):
    """Quick, but for two of its first calls: the machine was busy with something else."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls in (2, 3):
            time.sleep(0.1)
        return x[:, :2]


def test_a_machine_that_is_busy_for_a_moment_does_not_make_a_network_slow():
    task = divided(torch.randn(600, 4), torch.arange(600) % 2)
    assert _affordable(Interrupted(), task, 12) == ROWS[0]


def test_a_slow_network_is_shown_few_rows():
    slow = nn.Linear(4, 2)
    slow.register_forward_hook(lambda *_: time.sleep(0.2))
    assert _affordable(slow, divided(torch.randn(600, 4), torch.arange(600) % 2), 12) == ROWS[-1]
