"""Policies by enumeration, students by slices and masks, and a search that gets better."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tests.compress.striped import stripes
from torch import Tensor, nn

from netwright.compress.n2n import MULTIPLIERS, N2N, Student, _Run, limited, reward, taught_by
from netwright.compress.n2n.policies import Baseline, Removal, Shrinkage, surrogate
from netwright.compress.n2n.students import Shapes, dropped, layers
from netwright.core.budget import Budget, Target
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import parameter_count, seeded
from netwright.core.progress import remarks
from netwright.core.task import Task
from netwright.models import build


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Task]:
    return stripes(width=8, epochs=4)


def test_rewards_by_hand() -> None:
    assert reward(0.5, 0.9) == pytest.approx(0.5 * 1.5 * 0.9)
    assert reward(0.0, 1.0) == 0
    assert limited(0.6, False, 99) == 0.6
    assert limited(0.6, True, 0) == 0.6
    assert limited(0.6, True, 5) == pytest.approx((2 / 3) ** 4 - 1 + (2 / 3) ** 4 * 0.6)
    assert limited(0.6, True, 15) == limited(0.6, True, 40) == -1
    baseline = Baseline()
    assert [baseline.after([1.0, 3.0]), baseline.after([4.0, 4.0])] == [2.0, 3.0]


def gradients(loss: Tensor, policy: nn.Module) -> Tensor:
    found = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
    return torch.cat(
        [
            torch.zeros(p.numel()) if g is None else g.flatten()
            for g, p in zip(found, policy.parameters(), strict=True)
        ]
    )


@pytest.mark.parametrize("stage", ["removal", "shrinkage"])
def test_the_gradient_is_that_of_the_expected_reward(stage: str) -> None:
    """Over all choices, weighted by their probabilities; whatever the baseline."""
    torch.manual_seed(0)
    if stage == "removal":
        described, free = torch.randn(3, 8), torch.tensor([True, False, True])
        policy = Removal(8, hidden=4)
        every = [torch.tensor([a, True, b]) for a, b in itertools.product([True, False], repeat=2)]
        scored = lambda actions: policy.scored(described, free, actions)
    else:
        described = torch.randn(2, 4)
        policy = Shrinkage(4, hidden=4)
        every = [torch.tensor(pair) for pair in itertools.product(range(len(MULTIPLIERS)), repeat=2)]
        scored = lambda actions: policy.scored(described, actions)
    worth = torch.randn(len(every)).tolist()
    chances = torch.stack([scored(actions).log.exp() for actions in every])
    assert chances.sum().item() == pytest.approx(1, abs=1e-5)
    exact = gradients((chances * torch.tensor(worth)).sum(), policy)
    for baseline in (0.0, 0.7):
        each = [
            chance.detach() * gradients(surrogate([scored(actions)], [value], baseline), policy)
            for actions, value, chance in zip(every, worth, chances, strict=True)
        ]
        assert torch.allclose(-torch.stack(each).sum(0), exact, atol=1e-5)


def test_choices_are_drawn_as_often_as_they_are_likely() -> None:
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(0)
    described, free = torch.randn(3, 8), torch.tensor([True, True, False])
    policy = Removal(8)
    with torch.no_grad():
        policy.head.bias.fill_(0.8)
        drawn = (
            torch.stack([policy.draw(described, free, generator).actions for _ in range(300)]).float().mean(0)
        )
        assert torch.allclose(drawn[:2], policy(described).sigmoid()[:2], atol=0.08)
        assert drawn[2] == 1
        shrink = Shrinkage(4)
        found = torch.stack([shrink.draw(described[:2, :4], generator).actions for _ in range(300)])
        first = torch.tensor(
            [shrink.scored(described[:1, :4], torch.tensor([a])).log.exp() for a in range(11)]
        )
        assert torch.allclose(torch.bincount(found[:, 0], minlength=11) / 300, first, atol=0.08)


class Net(nn.Module):
    """A stem, a residual block, a layer that changes the size, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(1, 6, 3, padding=1), Block()
        self.down, self.same = nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 8, 5, padding=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x).relu())
        return self.head(self.same(self.down(x).relu()).relu().mean((2, 3)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.two(self.one(x).relu())).relu()


@pytest.fixture
def net() -> nn.Module:
    with seeded(0):
        return Net().eval()


X = torch.randn(3, 1, 10, 10, generator=torch.Generator().manual_seed(0))


def test_layers_are_described_and_those_that_keep_the_shape_can_go(net: nn.Module) -> None:
    found = {layer.name: layer for layer in layers(net, X)}
    assert list(found) == ["stem", "block", "block.one", "block.two", "down", "same", "head"]
    assert [name for name, layer in found.items() if layer.droppable] == ["block", "same"]
    assert {len(layer.described) for layer in found.values()} == {8}
    assert found["down"].described[:6] == pytest.approx((1, 0, 0, 3 / 7, 2 / 4, 1 / 3))
    assert [name for name, layer in found.items() if layer.described[-1]] == ["block.one", "block.two"]
    assert found["head"].described[:3] == (0, 1, 0)
    assert found["block"].described[:3] == (0, 0, 1)


def test_a_dropped_layer_passes_on_what_it_is_given(net: nn.Module) -> None:
    found = dropped(net, ["block", "block.one", "same"])
    x = net.down(net.stem(X).relu()).relu()
    assert torch.allclose(found(X), net.head(x.relu().mean((2, 3))), atol=1e-6)
    assert parameter_count(found) == sum(parameter_count(m) for m in (net.stem, net.down, net.head))
    found.stem.weight.data.zero_()
    assert net.stem.weight.abs().sum() > 0


def test_a_student_has_the_leading_units_and_the_middle_of_the_kernels(net: nn.Module) -> None:
    shapes = Shapes(net, X)
    whole = shapes.student(shapes.sizes([1.0] * len(shapes.attributes)))
    assert torch.allclose(whole(X), net(X), atol=1e-6)
    widths = [a for a in shapes.attributes if a.kind == "width"]
    kernels = {a.name: a.size for a in shapes.attributes if a.kind == "kernel"}
    assert kernels == {"stem": 3, "block.one": 3, "block.two": 3, "down": 3, "same": 5}
    assert sorted(a.size for a in widths) == [4, 6, 8, 8]
    half = shapes.sizes([0.5] * len(shapes.attributes))
    assert {half["width", a.name] for a in widths} == {2, 3, 4}
    assert half["kernel", "stem"] == 1
    assert half["kernel", "same"] == 1  # 2.5 rounds to 2, and kernels stay odd
    assert shapes.sizes([0.6] * len(shapes.attributes))["kernel", "same"] == 3
    small = shapes.student({**dict.fromkeys([("kernel", n) for n in kernels], 1), ("kernel", "same"): 3})
    masked = Net()
    masked.load_state_dict(net.state_dict())
    with torch.no_grad():
        for name, size in kernels.items():
            keep = torch.zeros_like(masked.get_submodule(name).weight)
            left, margin = (3, 1) if name == "same" else (1, size // 2)
            keep[..., margin : margin + left, margin : margin + left] = 1
            masked.get_submodule(name).weight.mul_(keep)
    assert torch.allclose(small(X), masked.eval()(X), atol=1e-5)
    assert small.same.weight.shape[2:] == (3, 3)
    slim = shapes.student({("width", a.name): half["width", a.name] for a in widths})
    assert torch.equal(slim.stem.weight, net.stem.weight[:3])
    assert torch.equal(slim.block.one.weight, net.block.one.weight[:2, :3])


def test_the_teacher_is_what_students_are_taught(trained: tuple[nn.Module, Task]) -> None:
    network, task = trained
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    x, y = next(iter(task.train.batches(16)))
    found = taught_by(network)(student, x, y)
    assert found.item() == pytest.approx((student(x) - network(x)).pow(2).mean().item(), rel=1e-5)


QUICK = {"iterations": 4, "rollouts": 3, "student_epochs": 0, "tune": 1, "lr": 0.02, "batch_size": 32}


def test_the_search_gets_better_where_only_size_counts(
    trained: tuple[nn.Module, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, task = trained

    def judged(self: _Run, network: nn.Module, choices) -> Student:
        gone = 1 - parameter_count(network) / self.parameters
        return Student(choices, network, gone, 1.0, -math.log(1 - gone) / 5)

    monkeypatch.setattr(_Run, "_judged", judged)
    method = N2N(**QUICK | {"iterations": 16, "rollouts": 5})
    found = method.search(network, task)
    rewards = torch.tensor(found.rewards["shrinkage"])
    assert len(rewards) == 80
    assert rewards[-20:].mean() > rewards[:20].mean() + 0.05
    assert len({repr(s.choices) for s in found.students}) == len(found.students) < 85
    assert [s.network is not None for s in found.students].count(True) == 1
    assert found.best.network is not None
    assert found.best.reward == max(s.reward for s in found.students)


def test_it_gives_a_small_network_that_still_knows(trained: tuple[nn.Module, Task]) -> None:
    network, task = trained
    before = {k: v.clone() for k, v in network.state_dict().items()}
    method = N2N(**QUICK | {"tune": 8})
    made = method(network, task, Budget())
    assert parameter_count(made) < 0.8 * parameter_count(network)
    assert evaluate(made, task, "test")["accuracy"] > 0.8
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    x = task.example(4)[0]
    assert torch.equal(made(x), method(network, task, Budget())(x))
    assert not torch.equal(made(x), N2N(**QUICK | {"tune": 8, "seed": 3})(network, task, Budget())(x))


def test_students_are_trained_as_asked_and_once(
    trained: tuple[nn.Module, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, task = trained
    fits: list[Fit] = []
    sizes: list[int] = []
    monkeypatch.setattr(
        Fit, "__call__", lambda self, net, task, **k: (fits.append(self), sizes.append(len(task.train)))
    )
    found = N2N(**QUICK | {"student_epochs": 2, "examples": 50}).search(network, task)
    assert len(fits) == len(found.students)
    assert set(sizes) == {50}
    assert {(f.epochs, f.optimiser, f.lr, f.nesterov, f.weight_decay) for f in fits} == {
        (2, "sgd", 0.02, True, 5e-4)
    }


def test_limits_count(trained: tuple[nn.Module, Task]) -> None:
    network, task = trained
    budget = Budget(target=Target(smaller=3.0, max_drop=1.0))
    found = N2N(**QUICK).search(network, task, budget)
    assert all(s.within == (s.compressed >= 2 / 3) for s in found.students if s.network or s.reward >= 0)
    assert found.best.within or not any(s.within for s in found.students if s.reward >= 0)
    strict = N2N(**QUICK).search(network, task, Budget(target=Target(max_drop=0.0)))
    assert all(
        s.within == (s.metric >= evaluate(network, task)["accuracy"])
        for s in strict.students
        if s.reward >= 0
    )


def test_policies_go_on_from_a_file(trained: tuple[nn.Module, Task], tmp_path) -> None:
    network, task = trained
    found = N2N(**QUICK).search(network, task)
    found.save(tmp_path / "policies.safetensors")
    run = _Run(N2N(**QUICK, policies=str(tmp_path / "policies.safetensors")), network, task, Budget())
    for held, new in ((found.removal, run.removal), (found.shrinkage, run.shrinkage)):
        assert all(torch.equal(a, b) for a, b in zip(held.parameters(), new.parameters(), strict=True))
    fresh = _Run(N2N(**QUICK), network, task, Budget())
    assert not torch.equal(fresh.shrinkage.head.weight, found.shrinkage.head.weight)
    with pytest.raises(BadInput, match="no such file"):
        N2N(policies=str(tmp_path / "none"))(network, task, Budget())


def test_without_time_everything_is_halved(trained: tuple[nn.Module, Task]) -> None:
    network, task = trained
    with remarks() as said:
        made = N2N(**QUICK)(network, task, Budget(seconds=0.0))
    assert "halved" in said[0]
    assert parameter_count(made) < 0.5 * parameter_count(network)


def test_what_does_not_compute_is_worth_less_than_nothing(net: nn.Module) -> None:
    task = Task.from_arrays(torch.randn(60, 1, 10, 10), torch.arange(60) % 3)
    run = _Run(N2N(**QUICK), net, task, Budget())
    bad = run._student({"dropped": ("down",)}, lambda: dropped(net, ["down"]))
    assert (bad.reward, bad.network) == (-1.0, None)


def test_what_it_cannot_serve() -> None:
    task = Task.from_arrays(torch.randn(40, 6), torch.arange(40) % 2)
    with pytest.raises(NotApplicable):
        N2N(**QUICK)(nn.Linear(6, 2), task, Budget())
    with pytest.raises(BadInput):
        N2N(rollouts=0)(build("mlp", (6,), 2), task, Budget())
