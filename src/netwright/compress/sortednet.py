"""SortedNet: sub-networks that contain one another, trained together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from netwright.compress.parts.keep import Sizes
from netwright.core import progress
from netwright.core.budget import Budget, Meter
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.graph import dependencies, reorder, trace
from netwright.core.graph.elastic import Elastic, Prefix
from netwright.core.graph.importance import taylor
from netwright.core.network import Inputs, batch_size, call, check_trainable, clone
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised
from netwright.core.weights.recalibrate import recalibrate

_SCORED, _SCORE_BATCH, _SCORE_PART = 512, 16, 0.1  # examples, and the share of the budget they may take


@dataclass(frozen=True, eq=False)
class Sorted:
    """One set of weights, many sizes. macs: multiply-accumulates of each size for one example (of weights alone), from
    the smallest to the whole network. elastic.at(size) runs a size on the shared weights."""

    elastic: Elastic
    macs: dict[Prefix, float]
    task: Task
    recalibrated: int
    seed: int

    def largest(self, macs: float) -> Prefix:
        """The size with the most multiply-accumulates that has at most so many; the smallest if none has."""
        sizes = list(self.macs)
        return next((size for size in reversed(sizes) if self.macs[size] <= macs), sizes[0])

    def extract(self, size: Prefix) -> nn.Module:
        """A plain network of this size, its batch statistics measured anew on training data."""
        small = self.elastic.extract(size)
        recalibrate(small, self.task.train, self.recalibrated, seed=self.seed)
        return small


@dataclass(frozen=True)
class SortedNet:
    """Train a network so that every prefix of its width and depth is a usable network; keep the largest that fits.

    SortedNet, a Place for Every Network and Every Network in its Place (arXiv 2309.00255). A size keeps the leading
    units (channels, heads, features) of every layer and the leading blocks of every stack, so that sizes contain one
    another. Each step draws `models` sizes, uniformly over the lattice `widths` x `depths` (shares), adds up the
    gradients of the task's own loss of each on the batch, and makes one optimiser step. No distillation, no size that
    is always drawn. `fit` gives all sizes (`Sorted`); the call gives one: the largest that leaves out the share `ratio`
    of the multiply-accumulates, or the smallest of all.

    start: 'inherited' goes on from the given weights, 'new' draws them anew, as the paper's training from scratch.
    round_to: numbers of units are multiples of it in layers of at least twice as many. epochs, batch_size, lr,
    weight_decay: AdamW, cosine. recalibrated: training examples for a size's batch statistics.

    Raises NotApplicable where the network has neither units that can go nor a stack of blocks, or where all sizes
    come to one. Stacks are neighbours of one class in nn.Sequential or nn.ModuleList (core/graph/stacks.py), so a
    network that was read from ONNX has widths alone.

    Where we differ. The paper leaves open how many sizes a step adds up (here 4, as in the sandwich rule of slimmable
    networks) and its batch norms. Ours: each size has batch statistics of its own, measured anew when it is taken out;
    the loss is divided by the number of sizes; inherited units are first put in the order of their Taylor importance,
    which changes no output, so that a prefix starts as the pruned network. The sizes of a step are one backward pass:
    the same gradient as one after the other, with the activations of all of them in memory.
    """

    ratio: float = 0.5
    widths: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    depths: tuple[float, ...] = (1 / 3, 2 / 3, 1.0)
    models: int = 4
    start: Literal["inherited", "new"] = "inherited"
    round_to: int = 1
    recalibrated: int = 1024
    epochs: float = 5
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 1e-2
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        if not 0 < self.ratio < 1:
            raise BadInput(f"the share to be left out lies between 0 and 1, not {self.ratio}")
        fitted = self.fit(network, task, budget)
        return fitted.extract(fitted.largest((1 - self.ratio) * max(fitted.macs.values())))

    def fit(self, network: nn.Module, task: Task, budget: Budget) -> Sorted:
        """Train all sizes on a copy of the network."""
        if self.models < 1 or self.round_to < 1 or self.recalibrated < 2:
            raise BadInput("sorted training needs models >= 1, round_to >= 1 and recalibrated >= 2")
        check_trainable(network)
        meter = budget.start()
        whole = self._begin(network, task, meter)
        elastic = Elastic(whole, task.example(2))
        macs = lattice(elastic, self.widths, self.depths, self.round_to)
        if len(macs) < 2:
            raise NotApplicable(
                "all widths and depths of this network come to one size: its layers have too few units"
            )
        sizes, generator = list(macs), torch.Generator().manual_seed(self.seed)

        def loss(_: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
            meter.spend(samples=(self.models - 1) * batch_size(inputs))
            return mean_loss(elastic.at, draw(sizes, self.models, generator), task, inputs, targets)

        if self.epochs:
            fit = Fit(
                epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, weight_decay=self.weight_decay,
                seed=self.seed,
            )  # fmt: skip
            fit(whole, task, loss=loss, meter=meter)
        return Sorted(elastic, macs, task, self.recalibrated, self.seed)

    def _begin(self, network: nn.Module, task: Task, meter: Meter) -> nn.Module:
        """The copy that is trained: with new weights, or with its units in the order of their importance."""
        if self.start == "new":
            return reinitialised(network, self.seed)
        if self.start != "inherited":
            raise BadInput(f"no start named '{self.start}'; use inherited or new")
        progress.step(0, None, "ordering the units")
        found = dependencies(trace(network, task.example(2)))
        if not found.groups:
            return clone(network)
        part = meter.left().part(_SCORE_PART).start()
        scores = taylor(network, found.groups, task, _SCORED, _SCORE_BATCH, self.seed, part)
        meter.spend(part.samples, part.epochs)
        order = {name: score.argsort(descending=True, stable=True) for name, score in scores.items()}
        return reorder(network, task.example(2), order, found)


def lattice(
    elastic: Elastic, widths: Sequence[float], depths: Sequence[float], round_to: int = 1
) -> dict[Prefix, float]:
    """The different sizes that these shares of width and depth come to, with their multiply-accumulates, ascending."""
    macs: dict[Prefix, float] = {}
    for depth in depths if elastic.stacks else (1.0,):
        for width in widths if elastic.groups else (1.0,):
            size = elastic.share(width, depth, round_to)
            if size not in macs:
                macs[size] = macs_of(elastic, size)
    return dict(sorted(macs.items(), key=lambda pair: pair[1]))


def macs_of(elastic: Elastic, size: Prefix) -> float:
    """Multiply-accumulates of a size for one example, those of weights."""
    found, kept = elastic.shortened(size)[1], elastic.kept(size)
    counts = {
        group.name: len(kept[group.name]) if group.name in kept else group.size for group in found.groups
    }
    return Sizes(found).measure(counts, "macs")


def draw(sizes: Sequence[Prefix], count: int, generator: torch.Generator) -> list[Prefix]:
    """So many sizes, each uniformly, one may come twice."""
    return [sizes[i] for i in torch.randint(len(sizes), (count,), generator=generator).tolist()]


def mean_loss(
    at: Callable[[Prefix], nn.Module], sizes: Sequence[Prefix], task: Task, inputs: Inputs, targets: Tensor
) -> Tensor:
    """The task's loss of these sizes on one batch, averaged over them. at: size -> the network of that size."""
    losses = [task.loss(call(at(size), inputs), targets) for size in sizes]
    return torch.stack(losses).mean()
