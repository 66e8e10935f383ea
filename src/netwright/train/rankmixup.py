"""RankMixup: Ranking-Based Mixup Training for Network Calibration (Noh et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.budget import Budget
from netwright.core.errors import NotApplicable
from netwright.core.fit import Fit
from netwright.core.network import Inputs, as_tuple, batch_size, call
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised


@dataclass(frozen=True)
class RankMixup:
    """Train from new weights so that confidence falls with the strength of mixing; no label is ever mixed.

    The raw batch carries cross entropy; mixed copies of it only supply an order. loss 'mrl' (one mix per
    example): a mixed example's largest logit shall stay `margin` below that of its raw one. loss 'mndcg'
    (`mixes` per example): raw and mixed confidences, ordered by their largest label weight, shall have a
    normalised discounted cumulative gain of 1.

    weight: of the ranking loss (0.1). margin: in logits (2 for CIFAR-10, 1 for Tiny ImageNet). alpha: mixing
    is Beta(alpha, alpha). fit: SGD 0.1, momentum 0.9, decay 5e-4, batch 128, gradient clipped at norm 2,
    200 epochs, rate divided by 10 at 40 % and 60 % of them.

    Mixed examples are charged to the budget's samples as raw ones are: 2 for each with 'mrl', 1 + `mixes` with
    'mndcg'. As in the authors' code the raw batch passes first and all its mixes after it in one batch of their own, in
    training mode: batch norm's running statistics are about half raw (0.9 / 1.9 at the usual momentum); a pass for
    each mix would leave them a fifth. We add no dropout before the classifier: the released nets
    have it and their baselines do not. NotApplicable: tasks without classes, inputs that are not numbers to mix.
    """

    loss: Literal["mrl", "mndcg"] = "mndcg"
    weight: float = 0.1
    margin: float = 2.0
    mixes: int = 3
    alpha: float = 2.0
    fit: Fit = Fit(  # noqa: RUF009  frozen
        epochs=200,
        optimiser="sgd",
        lr=0.1,
        weight_decay=5e-4,
        schedule="steps",
        milestones=(0.4, 0.6),
        clip=2.0,
    )
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        if task.kind != "classification":
            raise NotApplicable(f"it ranks the confidence in classes; this is a {task.kind} task")
        if not all(t.is_floating_point() for t in task.example()):
            raise NotApplicable(
                "it mixes inputs, which must be real numbers; these are token ids or the like"
            )
        meter = budget.start()
        trained = reinitialised(network, self.seed)
        generator = torch.Generator().manual_seed(self.seed)

        def ranked(net: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
            logits = call(net, inputs)
            copies = 1 if self.loss == "mrl" else self.mixes
            mixed = [mix(inputs, targets, self.alpha, generator) for _ in range(copies)]
            answers = call(net, joined([m.inputs for m in mixed])).chunk(copies)
            meter.spend(samples=copies * batch_size(inputs))
            if self.loss == "mrl":
                order = mixup_ranking_loss(logits, answers[0], mixed[0].label_weight, self.margin)
            else:
                order = ndcg_loss(logits, answers, [m.label_weight for m in mixed])
            return task.loss(logits, targets) + self.weight * order

        replace(self.fit, seed=self.seed)(trained, task, loss=ranked, meter=meter)
        return trained


@dataclass(frozen=True)
class Mixed:
    """inputs: (B, ...) mixed with permuted partners. label_weight (B,): the mixed label's largest entry."""

    inputs: Inputs
    label_weight: Tensor


def mix(inputs: Inputs, targets: Tensor, alpha: float, generator: torch.Generator) -> Mixed:
    """One mixing weight per batch, as in mixup. Partners of one class leave the label one-hot: weight 1."""
    # Beta(a, a) by two Gamma draws on the CPU, so that every device mixes alike
    gammas = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator)
    share = (gammas[0] / gammas.sum()).item()
    order = torch.randperm(len(targets), generator=generator).to(targets.device)
    tensors = tuple(share * t + (1 - share) * t[order] for t in as_tuple(inputs))
    largest = torch.full(targets.shape, max(share, 1 - share), device=targets.device)
    return Mixed(
        tensors if isinstance(inputs, tuple) else tensors[0],
        torch.where(targets == targets[order], torch.ones_like(largest), largest),
    )


def joined(batches: Sequence[Inputs]) -> Inputs:
    """Batches of equal shape as one, the first one's examples first."""
    tensors = tuple(torch.cat(parts) for parts in zip(*map(as_tuple, batches), strict=True))
    return tensors if isinstance(batches[0], tuple) else tensors[0]


def mixup_ranking_loss(raw: Tensor, mixed: Tensor, label_weight: Tensor, margin: float) -> Tensor:
    """mean of 1{label really mixed} max(0, margin + max_k mixed_k - max_k raw_k), logits (B, C)."""
    gap = F.relu(margin + mixed.amax(1) - raw.amax(1))
    return (gap * (label_weight < 1)).mean()


def ndcg_loss(raw: Tensor, mixed: Sequence[Tensor], label_weights: Sequence[Tensor]) -> Tensor:
    """mean of 1 - NDCG over examples: logits (B, C), one tensor and one weight (B,) per mix.

    Gains are confidences, in the order of their label weights (raw first, weight 1); the ideal gains are the
    label weights themselves. A quotient above 1, confidence above its label weight, is inverted.
    """
    confidences = torch.stack([logits.softmax(1).amax(1) for logits in mixed], 1)
    weights = torch.stack(label_weights, 1).to(confidences.dtype)
    weights, order = weights.sort(dim=1, descending=True, stable=True)
    gains = torch.cat([raw.softmax(1).amax(1, keepdim=True), confidences.gather(1, order)], 1)
    ideal = torch.cat([torch.ones_like(weights[:, :1]), weights], 1)
    discount = 1 / torch.log2(torch.arange(gains.shape[1], device=gains.device, dtype=gains.dtype) + 2)
    quotient = (gains * discount).sum(1) / (ideal * discount).sum(1)
    quotient = torch.where(quotient > 1, 1 / quotient, quotient)
    return (1 - quotient).mean()
