"""What the paper of RankMixup says, measured here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import arms_of, differences, mean, told
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.initialise import reinitialised
from netwright.core.metrics import outputs_of, score
from netwright.core.network import Inputs, as_tuple, call, seeded
from netwright.core.task import Task
from netwright.data import task as named_task
from netwright.models import build
from netwright.train.rankmixup import RankMixup

OURS, LONGER = "rankmixup, M-NDCG", "rankmixup, M-NDCG, equal epochs"
LOWER = {
    ours: tuple(Part(f"ece: {ours} less {other}", "below") for other in ("cross entropy", "mixup"))
    for ours in (OURS, LONGER)
}
LEVEL = {ours: Part(f"accuracy: {ours} less cross entropy", "at least", -0.005) for ours in (OURS, LONGER)}
CLAIM = Claim(
    slug="rankmixup",
    paper=(
        "best or near-best calibration error on CIFAR-10 and Tiny ImageNet (1.49 % against 3.73 % for cross entropy, "
        "ResNet-50) at equal accuracy"
    ),
    setting=(
        "Fashion-MNIST, one data set and 3 seeds; 600 training images without augmentation, CNN 16-32-64, SGD 0.1 with "
        "momentum 0.9, batch 32, no weight decay, cosine, gradient clipped at norm 2: trained until cross entropy is "
        "overconfident, as it is on the paper's beds. Cross entropy, mixup, label smoothing 0.05, focal 3 and "
        "margin-based label smoothing train 36 epochs; M-NDCG 9 and MRL 18, which are as many forward passes; one more "
        "arm gives M-NDCG 36 epochs, at four times the passes. The temperature is fitted on the 5,000 validation "
        "images. ECE with 15 bins on the 5,000 test images"
    ),
    rule=Rule(
        holds=(*LOWER[OURS], LEVEL[OURS]),
        mixed=(LOWER[OURS], (*LOWER[LONGER], LEVEL[LONGER])),
        bed=(Part("cross entropy's confidence over its accuracy", "at least", 0.03),),
    ),
)
EPOCHS = 36
FIT = Fit(
    epochs=EPOCHS, batch_size=32, optimiser="sgd", lr=0.1, weight_decay=0.0, schedule="cosine", clip=2.0, augment=False
)  # fmt: skip


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


def figures(network: nn.Module, task: Task) -> dict[str, float]:
    """The task's metrics on the test split, and by how much the mean confidence exceeds the accuracy."""
    outputs, targets = outputs_of(network, task.test)
    found = score(outputs, targets, task.kind)
    confidence = outputs.double().softmax(1).amax(1).mean().item()
    return {**found, "overconfidence": confidence - found["accuracy"]}


def measure(scale: Scale) -> list[dict[str, Any]]:
    task = named_task("fashion-mnist", limit=600)
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
                scaled = TemperatureScaling()(network, task, Budget())
                rows.append({"arm": "cross entropy + temperature", "seed": seed, **figures(scaled, task)})
        network = reinitialised(blank, seed)
        replace(FIT, seed=seed, label_smoothing=0.05)(network, task)
        rows.append({"arm": "label smoothing", "seed": seed, **figures(network, task)})
        ranked = (
            ("rankmixup, MRL", "mrl", EPOCHS / 2),
            (OURS, "mndcg", EPOCHS / 4),
            (LONGER, "mndcg", EPOCHS),
        )
        for arm, loss, epochs in ranked:
            method = RankMixup(loss=loss, fit=replace(FIT, epochs=epochs), seed=seed)
            rows.append({"arm": arm, "seed": seed, **figures(method(blank, task, Budget()), task)})
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    others = [arm for arm in arms_of(rows) if arm not in (OURS, LONGER)]
    found: dict[str, Any] = {}
    for ours in (OURS, LONGER):
        found |= differences(rows, ours, others, ("ece",))
        found |= differences(rows, ours, ("cross entropy",), ("accuracy",))
    ece = ", ".join(f"{arm} {100 * mean(rows, arm, 'ece'):.2f} %" for arm in (OURS, LONGER, *others))
    change = {ours: 100 * found[f"accuracy: {ours} less cross entropy"]["mean"] for ours in (OURS, LONGER)}
    ways = ((OURS, "a quarter of the epochs"), (LONGER, "equal epochs"))
    against = [f"with {name} {told(found[f'ece: {ours} less cross entropy'])}" for ours, name in ways]
    return Measured(
        summary=(
            f"ECE: {ece}; accuracy of M-NDCG {change[OURS]:+.2f} points from cross entropy at equal forward passes, "
            f"{change[LONGER]:+.2f} at equal epochs"
        ),
        figures=found,
        bed={
            "accuracy of cross entropy": mean(rows, "cross entropy", "accuracy"),
            "cross entropy's confidence over its accuracy": mean(rows, "cross entropy", "overconfidence"),
        },
        notes=f"M-NDCG's ECE against cross entropy's, in points: {'; '.join(against)}.",
    )
