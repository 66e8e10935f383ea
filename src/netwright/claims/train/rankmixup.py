"""What the paper of RankMixup says, measured here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.initialise import reinitialised
from netwright.core.metrics import outputs_of, score
from netwright.core.network import Inputs, as_tuple, call, seeded
from netwright.core.task import Task
from netwright.data import task as named_task
from netwright.models import build
from netwright.train.rankmixup import RankMixup

CLAIM = Claim(
    slug="rankmixup",
    paper=(
        "best or near-best calibration error on CIFAR-10 and Tiny ImageNet (1.49 % against 3.73 % for cross entropy, "
        "ResNet-50) at equal accuracy"
    ),
    setting=(
        "Fashion-MNIST, 4,000 training images, CNN 16-32-64, SGD 0.05; cross entropy trains 24 epochs and every "
        "other arm as many as have the same number of forward passes (M-NDCG 6, MRL 12, mixup 24, label smoothing "
        "24, focal 24, margin-based label smoothing 24); ECE with 15 bins on the test split"
    ),
    holds_if="ECE of M-NDCG is below cross entropy's and mixup's (both intervals below 0), accuracy within 0.5 point",
)
EPOCHS = 24
FIT = Fit(
    epochs=EPOCHS,
    optimiser="sgd",
    lr=0.05,
    weight_decay=5e-4,
    schedule="steps",
    milestones=(0.4, 0.6),
    clip=2.0,
)


def focal(network: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
    """Focal loss with gamma 3 (Mukhoti et al., arXiv 2002.09437)."""
    logp = F.log_softmax(call(network, inputs), 1).gather(1, targets[:, None])[:, 0]
    return (-((1 - logp.exp()) ** 3) * logp).mean()


def margin_smoothing(network: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
    """MbLS: logits may lie 6 below the largest before they cost 0.1 per unit (Liu et al., arXiv 2111.15430)."""
    logits = call(network, inputs)
    gaps = logits.amax(1, keepdim=True) - logits
    return F.cross_entropy(logits, targets) + 0.1 * F.relu(gaps - 6).mean()


def mixup(generator: torch.Generator):
    """Mixup with alpha 1 (Zhang et al., arXiv 1710.09412)."""

    def loss(network: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        share = torch.rand((), generator=generator).item()
        order = torch.randperm(len(targets), generator=generator)
        mixed = tuple(share * t + (1 - share) * t[order] for t in as_tuple(inputs))
        logits = call(network, mixed)
        return share * F.cross_entropy(logits, targets) + (1 - share) * F.cross_entropy(
            logits, targets[order]
        )

    return loss


def temperature_of(network: nn.Module, task: Task) -> float:
    """One temperature by validation likelihood."""
    logits, targets = outputs_of(network, task.val)
    grid = torch.logspace(-1, 1, 401)
    losses = torch.stack([F.cross_entropy(logits / t, targets) for t in grid])
    return float(grid[losses.argmin()])


def figures(network: nn.Module, task: Task, temperature: float = 1.0) -> dict[str, float]:
    outputs, targets = outputs_of(network, task.test)
    return score(outputs / temperature, targets, task.kind)


def measure(scale: Scale) -> Measured:
    task = named_task("fashion-mnist", limit=4_000)
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        with seeded(seed):
            blank = build("cnn", task.input_shape, task.outputs, widths=(16, 32, 64)).to(scale.device)
        losses = {
            "cross entropy": None, "focal": focal, "margin-based smoothing": margin_smoothing,
            "mixup": mixup(torch.Generator().manual_seed(seed)),
        }  # fmt: skip
        for arm, loss in losses.items():
            network = reinitialised(blank, seed)
            replace(FIT, seed=seed)(network, task, loss=loss)
            rows.append({"arm": arm, "seed": seed, **figures(network, task)})
            if arm == "cross entropy":
                scaled = figures(network, task, temperature_of(network, task))
                rows.append({"arm": "cross entropy + temperature", "seed": seed, **scaled})
        network = reinitialised(blank, seed)
        replace(FIT, seed=seed, label_smoothing=0.05)(network, task)
        rows.append({"arm": "label smoothing", "seed": seed, **figures(network, task)})
        for arm, loss, passes in (("rankmixup, MRL", "mrl", 2), ("rankmixup, M-NDCG", "mndcg", 4)):
            method = RankMixup(loss=loss, fit=replace(FIT, epochs=EPOCHS / passes), seed=seed)
            rows.append({"arm": arm, "seed": seed, **figures(method(blank, task, Budget()), task)})
    return verdict(rows)


def verdict(rows: list[dict[str, Any]]) -> Measured:
    ours = "rankmixup, M-NDCG"
    others = [a for a in dict.fromkeys(r["arm"] for r in rows) if a != ours]
    ece = {f"ECE over {b}": difference(rows, ours, b, "ece") for b in others}
    accuracy = difference(rows, ours, "cross entropy", "accuracy")
    below = all(ece[f"ECE over {b}"]["interval"][1] < 0 for b in ("cross entropy", "mixup"))
    percent = lambda arm: f"{100 * mean(rows, arm, 'ece'):.2f} %"
    holds = below and accuracy["mean"] > -0.005
    return Measured(
        rows=rows,
        verdict="holds" if holds else "mixed" if below else "does not hold here",
        summary=(
            f"ECE {percent(ours)} (M-NDCG) against {percent('cross entropy')} (cross entropy), {percent('mixup')} "
            f"(mixup) and {percent('cross entropy + temperature')} (cross entropy + temperature); accuracy "
            f"{100 * accuracy['mean']:+.2f} points from cross entropy at equal forward passes"
        ),
        figures={**ece, "accuracy over cross entropy": accuracy},
        notes="Equal forward passes leave M-NDCG a quarter of the epochs: part of its gain may be shorter training.",
    )
