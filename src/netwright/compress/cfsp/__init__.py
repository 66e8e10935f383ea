"""CFSP: An Efficient Structured Pruning Framework for LLMs with Coarse-to-Fine Activation Information
(arXiv 2409.13199)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netwright.compress.cfsp.find import Block, blocks
from netwright.compress.cfsp.measure import Measured, measure
from netwright.compress.cfsp.recover import ranks, recovered
from netwright.compress.cfsp.widths import best, counts, scores, shares
from netwright.core import progress
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.graph.cut import Orders, cut
from netwright.core.graph.ir import Graph
from netwright.core.graph.trace import trace
from netwright.core.measure.difference import relative_error
from netwright.core.network import (
    Inputs,
    as_tuple,
    call,
    clone,
    device_of,
    evaluating,
    move,
    without_fast_path,
)
from netwright.core.split import take
from netwright.core.task import Task


@dataclass(frozen=True)
class Cfsp:
    """Narrow the feed-forwards of a transformer, most in the blocks that change their stream least.

    One pass over calibration data. How far block b turns its stream, the mean angle between what it is given and what
    it gives, decides its share, (1 - ratio) s_b / mean(s) with s_b = sigmoid(a * 13.1 * (angle_b - mean angle)),
    angles in units of pi. Which units stay is decided within a block: the weights around a unit, those that read it
    times ||X||^b, relative to the same weights of all units, times ||X||^c, X being the unit's activations. The rest is
    deleted: rows of up and gate projection, columns of down. What comes out is a smaller dense network that computes
    what the whole one does with those units silent, with its own classes; faster in every runtime.

    Feed-forwards are found by what is computed: with a gate (SwiGLU and its like) or without one (GELU, ReLU), whatever
    the modules are called, in language models and in others. Raises NotApplicable where no block has one.

    ratio: share of the feed-forwards' units that goes, 0 to below 1. examples: of the training split; the paper takes
    128 of 1,024 tokens.
    a: how much the blocks differ. b, c: powers of the activations' sizes.
    as_released: what the authors' code computes. It divides each unit's weights by their own sum, so that they cancel
    and the score is 3/d ||X||^c (2/d without a gate). The paper's formula says the same; by default weights are
    divided by the sum over all units of the feed-forward instead, which lets them count.
    round_to: numbers kept are multiples of it, of a smaller power of two where it is over a sixteenth of the width; the
    blocks' widths together stay as near to the ratio as that permits, where the authors round each by itself.
    epochs: of recovery, with AdamW at `lr`; 0 for none. The linear layers of each block learn changes of low rank
    (LoRA, arXiv 2106.09685), of ranks in proportion to the angles and of mean `rank`, which are merged at the end. The
    paper does not state rank, data and schedule.

    Where we differ: the paper's factor belongs to sums over 131,072 tokens; ours, of the mean, is the same with any
    number. Where a block would keep more than it has, all differences shrink until it just does not (as_released: by
    1.05 times more).
    """

    ratio: float = 0.2
    examples: int = 128
    a: float = 1.0
    b: float = 1.0
    c: float = 1.0
    as_released: bool = False
    round_to: int = 128
    epochs: float = 0.0
    rank: int = 8
    lr: float = 5e-4
    batch_size: int = 16
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        self._check()
        meter = budget.start()
        example = task.example(2)
        graph = trace(network, example)
        found = blocks(network, graph, example)
        allowed = self.examples if budget.samples is None else min(self.examples, budget.samples)
        measured = measure(network, found, take(task.train, max(1, allowed), self.seed), meter)
        keep = self.kept(network, found, measured)
        small = narrowed(network, graph, found, keep, example)
        left = [len(kept) / block.width for block, kept in zip(found, keep, strict=True)]
        progress.remark(f"feed-forwards keep {min(left):.0%} to {max(left):.0%} of their units")
        if self.epochs > 0 and not meter.exhausted:
            fit = Fit(
                epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, weight_decay=0.0, seed=self.seed
            )
            small = recovered(small, found, ranks(measured.angles, self.rank), task, fit, meter)
        return small.eval()

    def kept(self, network: nn.Module, found: Sequence[Block], measured: Measured) -> list[Tensor]:
        """The units that stay, by block, in ascending order."""
        widths = [block.width for block in found]
        margin = 1.05 if self.as_released else 1.0
        numbers = counts(shares(measured.angles, widths, self.ratio, self.a, margin), widths, self.round_to)
        return [
            best(scores(network, block, sizes, self.b, self.c, self.as_released), number)
            for block, sizes, number in zip(found, measured.sizes, numbers, strict=True)
        ]

    def _check(self) -> None:
        if not 0 <= self.ratio < 1:
            raise BadInput(f"ratio is a share from 0 to below 1, not {self.ratio}")
        if self.examples < 1 or self.round_to < 1 or self.rank < 1:
            raise BadInput("examples, round_to and rank are 1 at least")


def narrowed(
    network: nn.Module, graph: Graph, found: Sequence[Block], keep: Sequence[Tensor], example: Inputs
) -> nn.Module:
    """A copy without the other units. graph: of the network. It is compared on the example with the network whose
    other units are silenced; NotApplicable where they differ."""
    axes: Orders = {}
    for block, kept in zip(found, keep, strict=True):
        feed = block.feed
        rows = torch.cat([kept, kept + block.width]) if feed.gate == feed.up else kept
        for name in dict.fromkeys((feed.gate or feed.up, feed.up)):
            axes[f"{name}.weight", 0] = rows
            if network.get_submodule(name).bias is not None:
                axes[f"{name}.bias", 0] = rows
        axes[f"{feed.down}.weight", 1] = kept
    small = clone(network)
    cut(small, graph, axes)
    if not _agree(network, small, found, keep, move(example, device_of(network))):
        raise NotApplicable("its feed-forward layers are used in a way that cannot be followed")
    return small.eval()


def _agree(
    network: nn.Module, small: nn.Module, found: Sequence[Block], keep: Sequence[Tensor], inputs: Inputs
) -> bool:
    """Whether the small network computes what the other does with its units silenced: in its own precision, else in
    double, for many blocks may make much of a rounding."""
    with evaluating(small), torch.no_grad():
        given = call(small, inputs)
    if relative_error(silenced(network, found, keep, inputs), given) <= 1e-4:
        return True
    doubled = tuple(t.double() if t.is_floating_point() else t for t in as_tuple(inputs))
    narrow, wide = clone(small).double(), clone(network).double()
    try:
        with evaluating(narrow), torch.no_grad():
            given = call(narrow, doubled)
        return relative_error(silenced(wide, found, keep, doubled), given) <= 1e-6
    except RuntimeError:  # a forward that insists on its precision
        return False


def silenced(network: nn.Module, found: Sequence[Block], keep: Sequence[Tensor], inputs: Inputs) -> Tensor:
    """What the network gives when the other units are 0."""
    handles = []
    for block, kept in zip(found, keep, strict=True):
        down = network.get_submodule(block.feed.down)
        mask = torch.zeros(block.width, device=down.weight.device, dtype=down.weight.dtype)  # type: ignore[arg-type]
        mask[kept] = 1
        handles.append(down.register_forward_pre_hook(lambda _, args, mask=mask: (args[0] * mask,)))
    try:
        with evaluating(network), torch.no_grad(), without_fast_path():
            return call(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
