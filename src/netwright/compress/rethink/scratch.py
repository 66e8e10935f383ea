"""The smaller architecture trained from scratch: did the inherited weights help, or only the smaller shape?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from netwright.compress.parts.keep import Scope
from netwright.compress.parts.prune import Prune
from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.fit import Fit
from netwright.core.measure.cost import cost
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised


@dataclass(frozen=True)
class Rethink:
    """Prune, forget the weights, train the small network anew.

    Rethinking the Value of Network Pruning (arXiv 1810.05270). The referee beside every pruner: where this one
    is as good, pruning was a search for an architecture and its inherited weights were worth nothing.

    ratio: share of the multiply-accumulates that goes. scope: 'layer' prunes every layer alike, so that the shape
    is 'predefined'; 'global' lets the weights' norms say which layers shrink, a 'discovered' shape. epochs: what
    the large network was trained for.
    training: 'scratch-E' trains the small one for as many epochs, 'scratch-B' for as many multiply-accumulates:
    floor(epochs * MACs of the large / MACs of the small). Milestones are fractions of the run, so they move with
    its length. All parameters are drawn anew by their modules' own initialisers, and batch statistics start anew.
    Defaults are the paper's for CIFAR; the budget may end the training earlier, the schedule squeezed into it.
    Where we differ: shapes come from `Prune` by the L1 norms of filters (its units are what depends on each other).
    Network Slimming, masks of single weights and lottery tickets: `Referee`.
    """

    ratio: float = 0.5
    scope: Scope = "layer"
    training: Literal["scratch-E", "scratch-B"] = "scratch-B"
    epochs: float = 160
    batch_size: int = 64
    optimiser: Literal["adamw", "sgd"] = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "one-cycle", "steps", "constant"] = "steps"
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        small = self.new_network(network, task)
        fit = Fit(
            epochs=self.length(network, small, task), batch_size=self.batch_size, optimiser=self.optimiser,
            lr=self.lr, weight_decay=self.weight_decay, schedule=self.schedule, seed=self.seed,
        )  # fmt: skip
        fit(small, task, budget)
        return small

    def new_network(self, network: nn.Module, task: Task) -> nn.Module:
        """The pruned shape with new weights."""
        shape = Prune(importance="filters", scope=self.scope, ratio=self.ratio, epochs=0)
        return reinitialised(shape(network, task, Budget()), self.seed)

    def length(self, large: nn.Module, small: nn.Module, task: Task) -> float:
        """Epochs for the small network."""
        if self.training == "scratch-E":
            return self.epochs
        if self.training != "scratch-B":
            raise BadInput(f"no training named '{self.training}'; use scratch-E or scratch-B")
        example = task.example()
        return longer(self.epochs, cost(large, example).macs, cost(small, example).macs)


def longer(epochs: float, large: float, small: float) -> float:
    """Scratch-B: epochs in which the small network spends the multiply-accumulates that the large one spent in
    `epochs`. large, small: those of one example."""
    return max(epochs, epochs * large / max(1, small) // 1)
