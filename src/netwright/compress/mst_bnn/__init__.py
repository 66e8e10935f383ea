"""MST-compression: channels of a binary network computed from one another (arXiv 2308.13735)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from netwright.compress.mst_bnn.layers import Reused
from netwright.compress.mst_bnn.training import Drawn, Towards, layers
from netwright.compress.mst_bnn.tree import Plan, distances, minimum
from netwright.compress.parts.binary import OPERATORS, advance, learning, packed, schedule
from netwright.core import progress
from netwright.core.budget import Budget, Meter
from netwright.core.errors import BadInput
from netwright.core.fit import Fit
from netwright.core.network import clone
from netwright.core.task import Task
from netwright.core.weights.binary import PackedSigns
from netwright.core.weights.fold import swap


@dataclass(frozen=True)
class MstBnn:
    """Compute the outputs of a layer of signs from one another, along a minimum spanning tree of its kernels.

    For kernels w_i and w_j of n signs that differ at d positions, y_j = y_i + 2 * (sum over these of w_jk x_k). The
    vertices of the tree are output channels, an edge is as long as d; its root, the centre, is computed in full, then
    every channel from its parent: n + sum of d additions for each place in place of n for every channel, with equal
    sums, to the bit. Among trees of the same length shallow ones are sought, since depth is what a circuit waits for.

    MST-compression: Compressing and Accelerating Binary Neural Networks with Minimum Spanning Tree (ICCV 2023, arXiv
    2308.13735). Training draws kernels together: the task's loss plus `penalty` times the sum over layers of their
    trees' mean d / n, after a part `warm` of the training without it; edges are found anew every `every` steps. The
    paper's own loss and schedule are not established; these are ours. towards: 'centre' penalises the distance of all
    channels to one instead, for shallow trees.

    Given a float network, its layers become signs by one of `bibench`'s operators, from the weights that they have. One
    that `bibench` made has bits, which cannot be trained: it is planned as it is. `plans` shows each layer's tree, its
    operations and its depth. Raises NotApplicable where bibench does.

    What this saves are operations of a circuit, where each of them is an adder. On a processor 64 signs are one
    operation, in words, and following the plan takes about ten times as long as those (the claim has the figure).
    ONNX and .pt2 files hold the layers themselves and compute them directly.
    """

    operator: Literal["bnn", "xnor", "dorefa", "bireal", "xnor++", "react", "recu", "fda"] = "bireal"
    penalty: float = 1.0
    warm: float = 0.3
    every: int = 100
    towards: Towards = "tree"
    epochs: float = 200
    batch_size: int = 128
    lr: float = 1e-3
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        if self.operator not in OPERATORS:
            raise BadInput(f"no operator named '{self.operator}'; use {', '.join(OPERATORS)}")
        if self.towards not in ("tree", "centre"):
            raise BadInput(f"kernels are drawn towards 'tree' or 'centre', not '{self.towards}'")
        if not 0 <= self.warm <= 1:
            raise BadInput(f"warm is a share of the training from 0 to 1, not {self.warm}")
        meter = budget.start()
        if any(isinstance(module, PackedSigns) for module in network.modules()):
            made = reusing(clone(network).eval())
        else:
            made = reusing(packed(self.trained(network, task, meter)))
        found = plans(made).values()
        done, direct = sum(p.operations for p in found), sum(p.direct for p in found)
        progress.remark(f"{100 * done / direct:.1f} % of the operations on signs are left")
        return made

    def trained(self, network: nn.Module, task: Task, meter: Meter) -> nn.Module:
        """The network in float, its kernels drawn together; one that learns signs already goes on from there."""
        learns = layers(network)
        subject = clone(network) if learns else learning(network, task, OPERATORS[self.operator], self.seed)
        fit = Fit(
            epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, weight_decay=0.0, seed=self.seed
        )
        epochs = min(fit.epochs, meter.left().epochs or math.inf)
        warm = int(self.warm * epochs * math.ceil(len(task.train) / fit.batch_size))
        loss = Drawn(task, self.penalty, warm, self.every, self.towards)
        if not meter.exhausted:
            fit(subject, task, meter=meter, loss=loss, on_step=schedule(fit, task, meter))
        advance(subject, 1.0)
        return subject


def reusing(network: nn.Module) -> nn.Module:
    """A copy whose layers of signs are computed along minimum spanning trees."""
    return swap(
        network,
        lambda _, m: isinstance(m, PackedSigns),
        lambda _, m: Reused(m, minimum(distances(m.weight().flatten(1).cpu()))),  # type: ignore[arg-type, operator]
    )


def plans(network: nn.Module) -> dict[str, Plan]:
    """The plan of each layer, by its name."""
    return {name: module.plan() for name, module in network.named_modules() if isinstance(module, Reused)}
