"""Codebooks and the mapping of weights to them, learned together; rows in an order that makes their groups free.

Network Memory Footprint Compression Through Jointly Learnable Codebooks and Mappings, ICLR 2024, arXiv 2309.17361.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from netwright.compress.parts.int8 import prepared
from netwright.compress.parts.moments import Moments
from netwright.compress.parts.walk import Walk, calibration
from netwright.compress.parts.weights import Weight, packed, simulated, weights
from netwright.core.budget import Budget, Meter
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.graph import Slice, dependencies, reorder, trace
from netwright.core.network import clone
from netwright.core.task import Task
from netwright.core.weights.grids import Codebook, Integers, Uniform
from netwright.core.weights.parametrise import Quantiser
from netwright.core.weights.ranges import RANGES

_FEW = 4  # examples with which the network is traced and put in order


@dataclass(frozen=True)
class JLCM:
    """Weights as indices of `bits` bits into codebooks of 2^bits values each; the network computes in float.

    Network Memory Footprint Compression Through Jointly Learnable Codebooks and Mappings (arXiv 2309.17361).
    1. The output units of every layer are clustered by how their weights are distributed, and put in an order in which
       the clusters lie one after the other, so that each owns a codebook and nobody has to store whose it is. Layers
       whose outputs meet (in a sum, say) share one order. Outputs of the network stay in theirs, in equal groups.
    2. A codebook is placed by k-means, a weight has the index of the value nearest to it.
    3. Layer by layer, codebooks and mapping are learned together, so that the layer's output on training data comes
       closest to what it should be: a weight is sum_k p_k C_k with p = softmax(I) over its codebook's values C, and
       p is drawn to 0 and 1 (`pull`, as AdaRound does it) until the largest I is the index.
    4. The gradient of I_k is dL/dw p_k (C_k - w), so that the farthest values move most ('plain'). In the paper's,
       'proximal', the factor's sign stays and its size falls with the distance, so that indices move to neighbours.

    codebooks: of each layer, fewer where they would take more than a quarter of what the indices take. ends: bits of
    the first and the last layer, evenly spaced, one scale per channel. examples: for calibration; fewer where their
    activations would take more than 1 GiB. steps: of learning, for each layer. correct: biases make up for the mean
    error (arXiv 1906.04721).

    Quantised are convolutions, linear layers, embeddings and recurrent weights (the last two by 1 and 2 alone); batch
    norms are folded first. The result holds `PackedBits` (core/weights/bits.py), which ONNX Runtime unpacks once: it
    saves bytes, not time. `pair` also gives the simulated twin, equal to the bit.

    Not told by the paper, and our choice: clusters by k-means on the logarithm of a row's standard deviation and its
    kurtosis; sign / (distance + 1/2) in mean steps of the codebook for the proximal factor; Adam, by which that size
    matters less, since it divides each logit's gradient by its own; a mapping that starts between the two values
    around a weight; and codebooks by least squares once the indices are settled. The error is taken from second
    moments, so that each step sees all examples. Raises NotApplicable where nothing can be quantised, BadInput for
    settings out of range.
    """

    bits: int = 3
    codebooks: int = 4
    gradient: Literal["proximal", "plain"] = "proximal"
    steps: int = 1000
    lr: float = 1e-2
    codebook_lr: float = 1e-3
    pull: float = 10.0
    correct: bool = True
    ends: int = 8
    examples: int = 256
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        return self.pair(network, task, budget)[1]

    def pair(self, network: nn.Module, task: Task, budget: Budget) -> tuple[nn.Module, nn.Module]:
        """The simulated network, its weights in float, and the packed one."""
        if not 1 <= self.bits <= 6 or self.codebooks < 1:
            raise BadInput("a codebook has 1 to 6 bits, and a layer has a codebook at least")
        if self.gradient not in ("proximal", "plain"):
            raise BadInput(f"no gradient named '{self.gradient}'; use proximal or plain")
        meter = budget.start()
        ordered, clusters = arranged(network, task, self)
        module = prepared(ordered, task)
        found = weights(module)
        inputs = calibration(module, task, self.examples, self.seed, meter)
        walk = Walk(module, self.quantisers(found, clusters), self._learner(len(found), meter), self.correct)
        walked = walk(inputs)
        made = simulated(clone(module), walked.rounded, walked.biases)
        return made, packed(module, walked.rounded, walked.biases)

    def quantisers(self, found: Sequence[Weight], clusters: Mapping[str, Tensor]) -> dict[str, Quantiser]:
        """By weight. clusters: of the rows of weights by name, where their order could be chosen."""
        ends = {w.path for w in (found[0], *[w for w in found if w.layers][-1:])}
        made = {}
        for weight in found:
            if weight.path in ends:
                made[weight.path] = Quantiser(Uniform(max(self.ends, 2), full=True, half=True), RANGES["mse"])
                continue
            count = self.affordable(torch.empty(weight.shape, device="meta"))
            runs = runs_of(clusters.get(weight.path), weight.shape[0], count)
            made[weight.path] = Quantiser(Codebook(self.bits, runs=runs))
        return made

    def affordable(self, weight: Tensor) -> int:
        """Codebooks of a weight (R, ...): their values take a quarter of what its indices take at most, if not one."""
        most = weight.numel() * self.bits // (4 * 16 * 2**self.bits)
        return max(1, min(self.codebooks, len(weight), most))

    def _learner(self, count: int, meter: Meter) -> Any:
        """How the layers share what is left of the budget."""
        done = iter(range(count))

        def learn(weight: Tensor, quantiser: Quantiser, seen: Moments) -> Integers:
            seconds = meter.left().seconds
            share = math.inf if seconds is None else seconds / (count - next(done))
            near = quantiser.to_integer(weight)
            if not isinstance(quantiser.grid, Codebook):
                return near
            least = seen.error(weight).sum()
            error = lambda rows: seen.error(quantiser.unrows(rows, weight)).sum() - least
            return self.learned(quantiser.rows(weight), near, quantiser.grid.runs, error, share)

        return learn

    def learned(
        self, rows: Tensor, near: Integers, runs: Sequence[int], error: Error, seconds: float
    ) -> Integers:
        """Better values and indices for weights (R, n) than `near`'s, by what their layer's output has wrong."""
        assert near.levels is not None
        of = torch.repeat_interleave(torch.arange(len(runs)), torch.tensor(runs))
        levels = torch.cat([part[:1] for part in near.levels.split(list(runs))])  # (runs, L)
        steps = (levels[:, -1:] - levels[:, :1]).clamp_min(1e-12) / (levels.shape[1] - 1)
        unit = error(near.values()).clamp_min(1e-30)
        values = (levels / steps).requires_grad_()  # in mean steps, so that one rate suits every codebook
        logits = between(rows, near.levels).log().requires_grad_()
        optimiser = torch.optim.Adam(
            [{"params": [logits]}, {"params": [values], "lr": self.codebook_lr}], self.lr
        )
        end = time.monotonic() + seconds
        with torch.enable_grad():
            for step in range(self.steps):
                if time.monotonic() > end:
                    break
                mixed = _Mixed.apply(logits, values[of], self.gradient == "proximal") * steps[of]
                loss = error(mixed) / unit
                done = (step / self.steps - 0.2) / 0.8
                if done >= 0:
                    loss = loss + self.pull * (1 - lead(logits) ** (20 - 18 * done)).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            codes = logits.detach().argmax(2)
            best = fitted(codes, (values.detach() * steps), of, error)
        found = Integers(codes.to(torch.int32), near.scale, near.zero, best.half().to(best.dtype)[of])
        return found if error(found.values()) < error(near.values()) else near


Error = Callable[[Tensor], Tensor]
"""Weights (R, n) -> what their layer's output has wrong: a number, a parabola in the weights."""


class _Mixed(torch.autograd.Function):
    """Weights (R, n) = sum over k of softmax(logits)_k values_k, from logits (R, n, L) and values (R, L).

    Backward, values get their gradient, and logit k that of the weight times softmax_k times (values_k - weight), or
    `proximal` in place of the last factor its sign over (its size + 1/2).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, values: Tensor, proximal: bool) -> Tensor:
        share = logits.softmax(2)
        weight = (share * values[:, None, :]).sum(2)
        ctx.save_for_backward(share, values, weight)
        ctx.proximal = proximal
        return weight

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        share, values, weight = ctx.saved_tensors
        gap = values[:, None, :] - weight[..., None]
        if ctx.proximal:
            gap = gap.sign() / (gap.abs() + 0.5)
        return slope[..., None] * share * gap, (slope[..., None] * share).sum(1), None


def between(rows: Tensor, levels: Tensor) -> Tensor:
    """Shares (R, n, L) of a row's ascending values (R, L) that mix to its weights (R, n): of the two values around a
    weight by its distance from them, and of every other a hundredth, so that none is out of reach."""
    high = torch.searchsorted(levels.contiguous(), rows.contiguous()).clamp(1, levels.shape[1] - 1)
    below, above = levels.gather(1, high - 1), levels.gather(1, high)
    share = ((rows - below) / (above - below).clamp_min(1e-12)).clamp(0.01, 0.99)
    shares = torch.full((*rows.shape, levels.shape[1]), 0.01)
    shares.scatter_(2, (high - 1)[..., None], 1 - share[..., None])
    return shares.scatter_(2, high[..., None], share[..., None])


def lead(logits: Tensor) -> Tensor:
    """By how much the largest share is ahead of the second (R, n): 1 for a mapping that is hard."""
    top = logits.softmax(2).topk(2, 2).values
    return (top[..., 0] - top[..., 1]).clamp_min(1e-9)


def fitted(codes: Tensor, values: Tensor, of: Tensor, error: Error) -> Tensor:
    """The values (runs, L) with the least error for these indices (R, n), of: the run of each row. The error is a
    parabola, so one step of Newton's method finds them; values that nobody has stay."""

    def at(flat: Tensor) -> Tensor:
        return error(flat.view(values.shape)[of].gather(1, codes))

    flat = values.flatten()
    hessian = torch.autograd.functional.hessian(at, flat)
    (slope,) = torch.autograd.grad(at(flat.requires_grad_()), flat)
    least = torch.linalg.lstsq(hessian, slope[:, None], driver="gelsd").solution[:, 0]
    return (flat.detach() - least).view(values.shape)


def arranged(network: nn.Module, task: Task, method: JLCM) -> tuple[nn.Module, dict[str, Tensor]]:
    """The same network with the units of every layer ordered by cluster, and by parameter the cluster of each row."""
    example = task.example(_FEW)
    found = dependencies(trace(network, example))
    tensors = {name: tensor.detach().cpu() for name, tensor in network.named_parameters()}
    order: dict[str, Tensor] = {}
    clusters: dict[str, Tensor] = {}
    for group in found.groups:
        made = [part for part in group.slices if makes_rows(part, tensors)]
        count = min((method.affordable(tensors[part.parameter]) for part in made), default=1)
        if count < 2:
            continue
        features = torch.stack([shape_of(tensors[part.parameter], part.index) for part in made]).mean(0)
        cluster = clustered(features, count, method.seed)
        order[group.name] = cluster.argsort(stable=True)
        for part in made:
            rows = clusters.setdefault(part.parameter, torch.full((len(tensors[part.parameter]),), -1))
            rows[part.index] = cluster.sort().values[:, None]
    try:
        return (reorder(network, example, order, found) if order else network), clusters
    except NotApplicable:  # a forward that insists on an order
        return network, {}


def makes_rows(part: Slice, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the units are rows of a matrix or kernel that makes them."""
    return (
        part.axis == 0 and not part.reads and part.parameter in tensors and tensors[part.parameter].dim() > 1
    )


def shape_of(weight: Tensor, index: Tensor) -> Tensor:
    """How the weights of each unit are distributed: logarithm of their standard deviation and their kurtosis, each in
    units of its own spread over the units. weight (R, ...), index (units, k) -> (units, 2)."""
    values = weight[index].flatten(1).double()
    centred = values - values.mean(1, keepdim=True)
    variance = centred.square().mean(1).clamp_min(1e-30)
    features = torch.stack([variance.log() / 2, centred.pow(4).mean(1) / variance**2], 1)
    return (features - features.mean(0)) / features.std(0, correction=0).clamp_min(1e-12)


def clustered(features: Tensor, count: int, seed: int) -> Tensor:
    """Cluster (units,) of each unit by k-means on its features (units, F), numbered by the mean of the first one."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # fewer different units than clusters: fewer clusters then
        found = KMeans(count, n_init=4, random_state=seed).fit_predict(features.numpy())
    means = [features[found == c, 0].mean().item() if (found == c).any() else 0.0 for c in range(count)]
    rank = np.empty(count, dtype=int)
    rank[np.argsort(means, kind="stable")] = np.arange(count)
    return torch.as_tensor(rank[found])


def runs_of(cluster: Tensor | None, rows: int, count: int) -> tuple[int, ...]:
    """Numbers of rows that share a codebook, one run after the other: the clusters where they lie so, else `count`
    parts as even as can be."""
    if cluster is not None:
        _, lengths = torch.unique_consecutive(cluster, return_counts=True)
        if len(lengths) <= count:
            return tuple(lengths.tolist())
    return tuple(len(part) for part in torch.arange(rows).chunk(count))
