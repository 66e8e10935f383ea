"""Every prefix is a network: gradients, sizes and costs against networks built one by one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netwright.compress import sortednet
from netwright.compress.sortednet import Sorted, SortedNet, draw, lattice, mean_loss
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.graph.elastic import Elastic, Prefix
from netwright.core.measure.cost import cost
from netwright.core.metrics import evaluate
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised
from netwright.models import build

SHAPE, CLASSES = (1, 8, 8), 4


def examples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    prototypes = torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(9))
    y = torch.arange(count) % CLASSES
    return prototypes[y] + torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed)), y


@pytest.fixture(scope="module")
def images() -> Task:
    x, y = examples(192, 1)
    return Task.from_arrays(x, y, val=examples(96, 2), test=examples(96, 3), meaning="image")


def cnn(widths: tuple[int, ...] = (6, 10), norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return build("cnn", SHAPE, CLASSES, widths=widths, norm=norm).eval()


def mlp(width: int = 10) -> nn.Module:
    torch.manual_seed(0)
    first, second, last = nn.Linear(64, width), nn.Linear(width, width), nn.Linear(width, CLASSES)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last)


def test_a_steps_gradient_is_the_mean_over_separate_networks(images: Task) -> None:
    """In float64, each size built by hand from leading slices; one that is drawn twice counts twice."""
    network = mlp().double()
    elastic = Elastic(network, torch.randn(2, *SHAPE, dtype=torch.float64))
    sizes = [elastic.share(w) for w in (0.2, 0.5, 0.5, 1.0)]
    x, y = examples(12, 5)
    loss = mean_loss(elastic.at, sizes, images, x.double(), y)
    loss.backward()
    expected = [torch.zeros_like(p) for p in network.parameters()]
    losses = []
    for k in (2, 5, 5, 10):
        weights = [p.detach() for p in network.parameters()]
        cuts = [(k, 64), (k,), (k, k), (k,), (4, k), (4,)]
        parts = [
            w[tuple(slice(n) for n in c)].clone().requires_grad_() for w, c in zip(weights, cuts, strict=True)
        ]
        hidden = torch.relu(x.double().flatten(1) @ parts[0].T + parts[1])
        hidden = torch.relu(hidden @ parts[2].T + parts[3])
        losses.append(nn.functional.cross_entropy(hidden @ parts[4].T + parts[5], y))
        for total, part, c in zip(expected, torch.autograd.grad(losses[-1], parts), cuts, strict=True):
            total[tuple(slice(n) for n in c)] += part / 4
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_sizes_are_drawn_uniformly() -> None:
    sizes = [Prefix((("a", i),)) for i in range(24)]
    generator = torch.Generator().manual_seed(3)
    drawn = [size for _ in range(1200) for size in draw(sizes, 4, generator)]
    counts = Counter(drawn)
    assert len(drawn) == 4800
    chi_square = sum((counts[size] - 200) ** 2 / 200 for size in sizes)
    assert chi_square < 50  # 23 degrees of freedom: above 49.7 in one case of a thousand
    assert draw(sizes, 4, torch.Generator().manual_seed(3)) == drawn[:4]


def test_the_lattice_and_its_costs_are_those_of_the_extracted_networks(images: Task) -> None:
    torch.manual_seed(0)
    elastic = Elastic(build("resnet", SHAPE, CLASSES, depth=14, width=4).eval(), images.example(2))
    macs = lattice(elastic, (0.25, 0.5, 1.0), (0.5, 1.0))
    assert set(macs) == {elastic.share(w, d) for w in (0.25, 0.5, 1.0) for d in (0.5, 1.0)}
    assert len(macs) == 6
    assert list(macs.values()) == sorted(macs.values())
    for size, counted in list(macs.items())[::2]:
        assert counted == cost(elastic.extract(size), images.example(1)).macs
    assert len(lattice(elastic, (0.25, 0.26), (1.0,))) == 1  # the same numbers of units


def test_the_largest_size_within_a_limit() -> None:
    macs = {Prefix((("a", i),)): float(cost) for i, cost in enumerate((10, 20, 20, 40), 1)}
    fitted = Sorted(None, macs, None, 2, 0)  # type: ignore[arg-type]
    by_limit = {limit: macs[fitted.largest(limit)] for limit in (5, 10, 19, 20, 39, 40, 99)}
    assert by_limit == {5: 10, 10: 10, 19: 10, 20: 20, 39: 20, 40: 40, 99: 40}


def test_every_prefix_is_usable_where_those_of_a_plainly_trained_network_are_not(images: Task) -> None:
    network = mlp(20)
    method = SortedNet(start="new", epochs=16, batch_size=32, lr=5e-3, seed=2)
    held = {k: v.clone() for k, v in network.state_dict().items()}
    fitted = method.fit(network, images, Budget())
    plain = reinitialised(network, 2)
    Fit(epochs=16, batch_size=32, lr=5e-3)(plain, images)
    ordinary = Sorted(Elastic(plain, images.example(2)), fitted.macs, images, 1024, 0)
    assert len(fitted.macs) == 8
    sizes = list(fitted.macs)[:5]
    accuracy = {
        name: [evaluate(one.extract(size), images, "test")["accuracy"] for size in sizes]
        for name, one in (("sorted", fitted), ("plain", ordinary))
    }
    assert min(accuracy["sorted"]) > 0.75
    assert sum(accuracy["sorted"]) > sum(accuracy["plain"]) + 0.4
    assert evaluate(fitted.extract(list(fitted.macs)[-1]), images, "test")["accuracy"] > 0.95
    assert all(torch.equal(v, held[k]) for k, v in network.state_dict().items())


def test_a_size_gets_batch_statistics_measured_anew(images: Task) -> None:
    fitted = SortedNet(epochs=0, recalibrated=192).fit(cnn(), images, Budget())
    small = fitted.extract(next(iter(fitted.macs)))
    raw = torch.cat([small.conv1(x[0] if isinstance(x, tuple) else x) for x, _ in images.train.batches(128)])
    torch.testing.assert_close(small.norm1.running_mean, raw.mean((0, 2, 3)), atol=0.02, rtol=0.02)
    torch.testing.assert_close(small.norm1.running_var, raw.var((0, 2, 3)), atol=0.05, rtol=0.05)
    fewer = SortedNet(epochs=0, recalibrated=2).fit(cnn(), images, Budget())
    assert not torch.equal(
        fewer.extract(next(iter(fitted.macs))).norm1.running_mean, small.norm1.running_mean
    )


def test_inherited_units_come_in_the_order_of_their_importance(images: Task) -> None:
    """Half of the units do nothing: the prefix without them computes the same, before any training."""
    network = cnn((8, 8), norm=False)
    with torch.no_grad():
        network.conv2.weight[:, [0, 1, 2, 5]] = 0.0
        network.head.weight[:, [1, 3, 4, 6]] = 0.0
    method = SortedNet(widths=(0.5, 1.0), epochs=0)
    fitted = method.fit(network, images, Budget())
    x = images.test.batches(96)
    inputs = next(iter(x))[0]
    expected = network(inputs)
    for size in fitted.macs:
        torch.testing.assert_close(fitted.extract(size)(inputs), expected, atol=1e-5, rtol=1e-5)
    smaller = method(network, images, Budget())
    assert smaller.conv1.out_channels == 4
    torch.testing.assert_close(smaller(inputs), expected, atol=1e-5, rtol=1e-5)


def test_new_weights_are_the_seeds_and_the_same_twice(images: Task) -> None:
    network = mlp()
    fitted = SortedNet(start="new", epochs=0, seed=4).fit(network, images, Budget())
    whole = fitted.extract(list(fitted.macs)[-1])
    assert torch.equal(whole[1].weight, reinitialised(network, 4)[1].weight)
    runs = [SortedNet(start="new", epochs=0.5, batch_size=48)(network, images, Budget()) for _ in range(2)]
    assert torch.equal(runs[0][1].weight, runs[1][1].weight)


def test_the_share_that_is_left_out_and_the_rounding(images: Task) -> None:
    network = cnn((16, 16), norm=False)
    whole = cost(network, images.example(1)).macs
    for ratio in (0.3, 0.6):
        small = SortedNet(ratio=ratio, epochs=0)(network, images, Budget())
        left = cost(small, images.example(1)).macs / whole
        assert 1 - ratio - 0.2 < left <= 1 - ratio
    rounded = SortedNet(ratio=0.3, epochs=0, round_to=8)(network, images, Budget())
    assert rounded.conv1.out_channels == 8


def test_depth_alone_is_enough(images: Task) -> None:
    """Blocks whose units are all tied to the outputs: nothing but their number can change."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(CLASSES, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.tanh(self.layer(x))

    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES), Block(), Block(), Block())
    fitted = SortedNet(epochs=0).fit(network, images, Budget())
    assert [dict(size.blocks) for size in fitted.macs] == [{"2": 1}, {"2": 2}, {}]
    small = SortedNet(ratio=0.05, epochs=0)(network, images, Budget())
    x = torch.randn(3, *SHAPE)
    torch.testing.assert_close(small(x), network[:4](x))


def test_each_step_is_charged_for_all_of_its_sizes(images: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    counted = lambda sizes, count, generator: steps.append(count) or draw(sizes, count, generator)
    monkeypatch.setattr(sortednet, "draw", counted)
    SortedNet(start="new", models=3, batch_size=32)(cnn(), images, Budget(samples=290))
    assert steps == [3, 3, 3, 3]  # 96 examples a step
    steps.clear()
    SortedNet(models=3, batch_size=32)(cnn(), images, Budget(samples=290))
    assert steps == [3, 3, 3]  # the order of the units took some


def test_the_length_is_the_epochs_and_the_draws_are_the_seeds(
    images: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[Prefix]] = []

    def recorded(*given: Any) -> list[Prefix]:
        drawn.append(draw(*given))
        return drawn[-1]

    monkeypatch.setattr(sortednet, "draw", recorded)
    for seed in (0, 1):
        SortedNet(start="new", epochs=0.5, batch_size=48, seed=seed).fit(mlp(), images, Budget())
    assert len(drawn) == 4  # two steps each
    assert drawn[:2] != drawn[2:]


def test_what_cannot_be_served_and_settings_that_cannot_be(images: Task) -> None:
    alone = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    with pytest.raises(NotApplicable, match="no part of this network is a prefix"):
        SortedNet()(alone, images, Budget())
    with pytest.raises(NotApplicable, match="come to one size"):
        SortedNet(widths=(1.0,))(cnn(), images, Budget())
    for settings in (
        {"ratio": 0.0}, {"ratio": 1.0}, {"models": 0}, {"round_to": 0}, {"recalibrated": 1}, {"start": "old"},
        {"widths": (0.0, 1.0)},
    ):  # fmt: skip
        with pytest.raises(BadInput):
            SortedNet(**settings)(cnn(), images, Budget())
