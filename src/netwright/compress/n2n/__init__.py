"""Layers removed and shrunk by policies that learn from what their students can do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.compress.n2n.policies import MULTIPLIERS, Baseline, Drawn, Removal, Shrinkage, surrogate
from netwright.compress.n2n.students import ATTRIBUTE_FEATURES, LAYER_FEATURES, Shapes, dropped, layers
from netwright.core import progress
from netwright.core.budget import Budget, Meter
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.files.checkpoint import load_state, save_state
from netwright.core.fit import Fit, Loss
from netwright.core.metrics import evaluate
from netwright.core.network import (
    Inputs,
    call,
    clone,
    device_of,
    evaluating,
    move,
    parameter_count,
    seeded,
)
from netwright.core.split import take
from netwright.core.task import Task

__all__ = ["MULTIPLIERS", "N2N", "Search", "Student", "reward"]

_SEARCH = 0.7  # share of the budget; the rest tunes the best student
_EASING = 15  # iterations until a broken limit costs all


@dataclass(frozen=True)
class Student:
    """What a rollout made. choices: what was dropped, and what is left of each attribute. compressed: share of the
    parameters that is gone. metric: on validation data. within: whether it keeps to the limits. The reward of one that
    cannot be built is -1. network: of the best so far; the others are not kept."""

    choices: dict[str, Any]
    network: nn.Module | None = None
    compressed: float = 0.0
    metric: float = math.nan
    reward: float = -1.0
    within: bool = True

    @property
    def rank(self) -> tuple[bool, float]:
        """Higher is better: within the limits first, then by reward."""
        return self.within, self.reward


@dataclass(frozen=True)
class Search:
    """Students in the order in which they were made (each architecture once), rewards of every rollout by stage, and
    the policies, which `save` writes for `N2N(policies=...)` on another network."""

    students: list[Student]
    rewards: dict[str, list[float]]
    removal: Removal
    shrinkage: Shrinkage

    @property
    def best(self) -> Student:
        return max(self.students, key=lambda s: s.rank)

    def save(self, path: str | Path) -> None:
        parts = {"removal": self.removal, "shrinkage": self.shrinkage}
        save_state(
            Path(path), {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}
        )


def reward(compressed: float, share: float) -> float:
    """C (2 - C) A: of the parameters that are gone, C, and the share of the teacher's metric that is left, A."""
    return compressed * (2 - compressed) * share


def limited(value: float, broken: bool, iteration: int) -> float:
    """The reward of a student that breaks a limit falls, over 15 iterations, to that of one that does not run."""
    if not broken:
        return value
    easing = max(0.0, 1 - iteration / _EASING) ** 4
    return (easing - 1) + easing * value


@dataclass(frozen=True)
class N2N:
    """Two policies turn the given network, the teacher, into a smaller student: one drops layers, the other shrinks
    what is left of them; both learn by policy gradient from the students' size and accuracy.

    N2N Learning: Network to Network Compression via Policy Gradient Reinforcement Learning (arXiv 1709.06030).

    iterations: of each policy, with so many rollouts. Each student begins with the teacher's leading units and the
    middle of its kernels, and is trained for `student_epochs` on the teacher's outputs (squared error on logits; SGD,
    Nesterov) with `examples` of the training data (all where 0). The best by reward is tuned for `tune` epochs more on
    all of them. A budget's target limits the search: what is not `smaller` enough, or drops more, loses its reward.
    policies: a file that `Search.save` wrote, to begin with what was learned on another network.

    A width is that of a whole group of units which belong together, so that residual branches agree. A student that
    cannot be built has a reward of -1. Same architectures are trained once. The search takes 0.7 of the budget.

    Where we differ: the reward's accuracy is that of validation data (the released code takes test data), each rollout
    is credited with its own reward (not with its batch's mean), weights are true slices; layers whose removal would
    change a shape are not among the choices of the first policy; strides and paddings are none of the second's.
    NotApplicable for outputs that are no logits or values (B, O), and where nothing can shrink.
    """

    iterations: int = 100
    rollouts: int = 5
    student_epochs: float = 5
    examples: int = 0
    lr: float = 5e-4
    batch_size: int = 64
    tune: float = 10
    removal_lr: float = 0.003
    shrinkage_lr: float = 0.1
    policies: str = ""
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        meter = budget.start()
        found = self.search(network, task, budget.part(_SEARCH), meter)
        best = found.best.network
        assert best is not None
        if self.tune and not meter.exhausted:
            self.training(self.tune)(best, task, meter=meter, loss=taught_by(network))
        return best.eval()

    def search(
        self, network: nn.Module, task: Task, budget: Budget | None = None, meter: Meter | None = None
    ) -> Search:
        """Both stages. meter: charged as well, where the search is a part of something."""
        if self.iterations < 1 or self.rollouts < 1:
            raise BadInput("a policy needs at least one iteration of one rollout")
        run = _Run(self, network, task, budget or Budget())
        found = run.go()
        if meter is not None:
            meter.spend(run.meter.samples, run.meter.epochs)
        return found

    def training(self, epochs: float) -> Fit:
        """How a student is trained."""
        return Fit(
            epochs=epochs, batch_size=self.batch_size, optimiser="sgd", lr=self.lr, weight_decay=5e-4, nesterov=True,
            seed=self.seed,
        )  # fmt: skip


def taught_by(teacher: nn.Module) -> Loss:
    """The loss of a student: squared error to the teacher's outputs, the average over all of them."""
    fixed = clone(teacher).eval().requires_grad_(False)

    def loss(network: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = call(fixed, inputs)
        return F.mse_loss(call(network, inputs), wanted)

    return loss


class _Run:
    """One search: what its rollouts share."""

    def __init__(self, method: N2N, teacher: nn.Module, task: Task, budget: Budget) -> None:
        self.method, self.teacher, self.task = method, teacher, task
        self.target, self.meter = budget.target, budget.start()
        self.example = move(task.example(2), device_of(teacher))
        with evaluating(teacher), torch.no_grad():
            outputs = call(teacher, self.example)
        if not isinstance(outputs, Tensor) or outputs.dim() != 2:
            raise NotApplicable(
                "students learn from outputs (batch, values), and this network gives something else"
            )
        Shapes(teacher, self.example)  # where nothing of it can shrink, it says so now
        self.shape, self.loss = outputs.shape[1:], taught_by(teacher)
        self.learn = (
            replace(task, train=take(task.train, method.examples, method.seed)) if method.examples else task
        )
        self.parameters = parameter_count(teacher)
        self.metric = evaluate(teacher, task, "val")[task.primary]
        self.meter.spend(samples=len(task.val))
        self.generator = torch.Generator().manual_seed(method.seed)
        with seeded(method.seed):
            self.removal, self.shrinkage = Removal(LAYER_FEATURES), Shrinkage(ATTRIBUTE_FEATURES)
        _load(method.policies, {"removal": self.removal, "shrinkage": self.shrinkage})
        self.known: dict[Any, Student] = {}
        self.rewards: dict[str, list[float]] = {"removal": [], "shrinkage": []}

    def go(self) -> Search:
        self._remove()
        able = [student for student in self.known.values() if student.reward >= 0]
        gone = max(able, key=lambda s: s.rank).choices["dropped"] if able else ()
        shapes = Shapes(dropped(self.teacher, gone), self.example)
        self._shrink(shapes, gone)
        if not any(student.network is not None for student in self.known.values()):
            progress.remark("no time was left for a search: every attribute is halved")
            sizes = shapes.sizes([0.5] * len(shapes.attributes))
            self._note("half", self._judged(shapes.student(sizes), {"dropped": gone, "sizes": _words(sizes)}))
        return Search(list(self.known.values()), self.rewards, self.removal, self.shrinkage)

    def _remove(self) -> None:
        listed = layers(self.teacher, self.example)
        free = torch.tensor([layer.droppable for layer in listed])
        if not bool(free.any()):
            return
        described = torch.tensor([layer.described for layer in listed])

        def student(keep: Tensor) -> Student:
            gone = tuple(layer.name for layer, stays in zip(listed, keep.tolist(), strict=True) if not stays)
            return self._student({"dropped": gone}, lambda: dropped(self.teacher, gone))

        draw = lambda: self.removal.draw(described, free, self.generator)
        self._learn("removal", self.removal, self.method.removal_lr, draw, student)

    def _shrink(self, shapes: Shapes, gone: tuple[str, ...]) -> None:
        described = torch.tensor([attribute.described for attribute in shapes.attributes])

        def student(actions: Tensor) -> Student:
            sizes = shapes.sizes([MULTIPLIERS[i] for i in actions.tolist()])
            return self._student({"dropped": gone, "sizes": _words(sizes)}, lambda: shapes.student(sizes))

        draw = lambda: self.shrinkage.draw(described, self.generator)
        self._learn("shrinkage", self.shrinkage, self.method.shrinkage_lr, draw, student)

    def _learn(
        self,
        stage: str,
        policy: nn.Module,
        lr: float,
        draw: Callable[[], Drawn],
        student: Callable[[Tensor], Student],
    ) -> None:
        """Iterate one policy. The first stage leaves the second one as much as it took."""
        seconds = self.meter.seconds
        until = self.meter.elapsed + (seconds - self.meter.elapsed) / (2 if stage == "removal" else 1)
        optimiser, baseline = torch.optim.Adam(policy.parameters(), lr=lr), Baseline()
        total = self.method.iterations * self.method.rollouts
        for iteration in range(self.method.iterations):
            drawn, rewards = [], []
            for _ in range(self.method.rollouts):
                if self.meter.exhausted or self.meter.elapsed >= until:
                    return
                drawn.append(draw())
                made = student(drawn[-1].actions)
                rewards.append(limited(made.reward, not made.within, iteration))
                self.rewards[stage].append(rewards[-1])
                progress.step(len(self.rewards[stage]), total, f"{stage}, reward {rewards[-1]:.3f}")
            optimiser.zero_grad()
            surrogate(drawn, rewards, baseline.after(rewards)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    def _note(self, key: Any, student: Student) -> None:
        """Put a student on record; of the networks, that of the best is kept."""
        best = max(self.known.values(), key=lambda s: s.rank, default=None)
        if best is not None and student.rank > best.rank:
            self.known = {k: replace(s, network=None) for k, s in self.known.items()}
        elif best is not None:
            student = replace(student, network=None)
        self.known[key] = student

    def _student(self, choices: dict[str, Any], build: Callable[[], nn.Module]) -> Student:
        """The student of these choices: trained and judged where it is new."""
        key = repr(choices)
        if key not in self.known:
            self._note(key, self._new(choices, build))
        return self.known[key]

    def _new(self, choices: dict[str, Any], build: Callable[[], nn.Module]) -> Student:
        try:
            network = build()
            with evaluating(network), torch.no_grad():
                fits = call(network, self.example).shape[1:] == self.shape
        except (NotApplicable, RuntimeError):  # a shape that some later layer does not take
            return Student(choices)
        if not fits or not parameter_count(network):
            return Student(choices)
        if self.method.student_epochs and not self.meter.exhausted:
            self.method.training(self.method.student_epochs)(
                network, self.learn, loss=self.loss, meter=self.meter
            )
        return self._judged(network, choices)

    def _judged(self, network: nn.Module, choices: dict[str, Any]) -> Student:
        compressed = 1 - parameter_count(network) / self.parameters
        metric = evaluate(network.eval(), self.task, "val")[self.task.primary]
        self.meter.spend(samples=len(self.task.val))
        smaller, drop = self.target.smaller, self.target.max_drop
        small = smaller is None or compressed >= 1 - 1 / smaller
        good = drop is None or self.metric - metric <= drop
        share = max(0.0, metric) / self.metric if self.metric > 0 else 0.0
        return Student(choices, network, compressed, metric, reward(compressed, share), small and good)


def _words(sizes: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {f"{kind} of {name}": size for (kind, name), size in sizes.items()}


def _load(path: str, policies: Mapping[str, nn.Module]) -> None:
    if not path:
        return
    held = load_state(Path(path))[0]
    for name, policy in policies.items():
        mine = {k.removeprefix(f"{name}."): v for k, v in held.items() if k.startswith(f"{name}.")}
        try:
            policy.load_state_dict(mine)
        except RuntimeError as error:
            raise BadInput(f"{path} holds no policies of N2N ({str(error).splitlines()[0]})") from None
