"""Pruned, or simply smaller? The referee's claim, measured here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from netwright.claims.beds.quartered import quartered
from netwright.claims.beds.trained import convergence, fresh, gained, testbed
from netwright.claims.clock import uncounted
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import difference, mean, told
from netwright.compress.rethink.referee import Referee
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import clone, seeded
from netwright.core.task import Task
from netwright.models import build

STRUCTURED = tuple(f"{pruner} {ratio}" for pruner in ("filters", "slimming") for ratio in (0.5, 0.75))
CASES = (*STRUCTURED, "weights 0.75")
RATES = ("weights 0.75, rate x 1", "weights 0.75, rate x 0.1")
QUICK = Fit(
    epochs=25, lr=4e-3, weight_decay=1e-2, schedule="steps", milestones=(0.5, 0.74), warmup=1.0, mixed_precision=True,
    validate=True,
)  # fmt: skip
IMAGES = 3000
CLAIM = Claim(
    slug="rethink",
    paper="VGG-16 on CIFAR-10, L1 filters: 93.41 fine-tuned, 93.62 Scratch-E, 93.78 Scratch-B",
    setting=(
        "CNN of widths 24-48-96 with batch norm, 3,000 Fashion-MNIST images averaged to 14x14, 25 epochs of AdamW at "
        "4e-3, divided by 10 at half and at three quarters of them. Half and three quarters of the "
        "multiply-accumulates removed by L1 norm of filters (every layer alike) and by Network Slimming (trained with "
        "1e-4 times the L1 norm of the scales), three quarters of the convolutions' weights by magnitude. Fine-tuned a "
        "quarter of the epochs at the best of 1, 1/10 and 1/100 of the rate on validation data; new weights for as "
        "many epochs (E) or multiply-accumulates (B); all 5,000 test images"
    ),
    full="ResNet-8 (width 16) on all of Fashion-MNIST with flips and crops, its recipe: the bed 'fashion'",
    rule=Rule(
        holds=tuple(Part(f"scratch-B less fine-tuned, {case}", "at least", -0.003) for case in STRUCTURED),
        bed=(
            Part("gained in the last quarter of training", "within", 0.003),
            Part("gained by training twice as long", "within", 0.005),
            Part("lost with half of the multiply-accumulates", "at most", 0.01),
        ),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        initial, large, task, recipe, quarter = subject(scale, seed)
        referee = Referee(recipe=replace(recipe, validate=False))
        found = [
            *replace(referee, pruners=("filters", "slimming")).one_seed(initial, large, task, seed),
            *replace(referee, pruners=("weights",), ratios=(0.75,)).one_seed(initial, large, task, seed)[1:],
        ]
        twice = clone(initial)
        with uncounted():
            replace(recipe, epochs=2 * recipe.epochs, warmup=2 * recipe.warmup, seed=seed)(twice, task)
        about = {"arm": "large, twice as long", "case": "", "seed": seed}
        rows.append({**about, "test": evaluate(twice, task, "test")["accuracy"], "last_quarter": quarter})
        rows += found
    for row in rows:
        row["arm"] = f"{row['arm']}, {row['case']}" if row["case"] else row["arm"]
    return rows


def subject(scale: Scale, seed: int) -> tuple[nn.Module, nn.Module, Task, Fit, float]:
    """The network as its training began, trained, its task, its recipe, and what the last quarter gained."""
    if scale.name == "full":
        large, task = testbed("fashion", seed, scale.device)
        initial, _, recipe = fresh("fashion", seed)
        quarter = convergence("fashion", seed).last_quarter or 0.0
        return initial.to(scale.device), large.to(scale.device), task, recipe, quarter
    task = quartered(IMAGES, 5_000, seed)
    with seeded(seed), uncounted():
        initial = build("cnn", task.input_shape, task.outputs, widths=(24, 48, 96))
        initial = initial.to(scale.device, memory_format=torch.channels_last)
        large = clone(initial)
        history = replace(QUICK, seed=seed)(large, task)
    return initial, large, task, QUICK, gained(history, "accuracy") or 0.0


def judge(rows: list[dict[str, Any]]) -> Measured:
    gap = lambda arm, other: difference(rows, arm, other, "test")
    figures: dict[str, Any] = {
        f"{arm} less {other}, {case}": gap(f"{arm}, {case}", f"{other}, {case}")
        for other in ("fine-tuned", "retrained")
        for arm in ("scratch-B", "scratch-E")
        for case in CASES
    }
    figures |= {
        f"lottery less new weights, {case}": gap(f"lottery, {case}", f"new weights, {case}") for case in RATES
    }
    of = lambda arm: mean(rows, arm, "test")
    figures |= {arm: of(arm) for arm in dict.fromkeys(row["arm"] for row in rows)}
    kept = [of(f"retrained, {case}") for case in STRUCTURED if case.endswith("0.5")]
    listed = lambda pair: "; ".join(f"{case} {told(figures[f'{pair}, {case}'])}" for case in CASES)
    tickets = ", ".join(
        f"{told(figures[f'lottery less new weights, {case}'])} ({case.partition(', ')[2]})" for case in RATES
    )
    return Measured(
        summary=(
            f"the large network reaches {100 * of('large'):.2f} %; Scratch-B less fine-tuning, in points: "
            f"{listed('scratch-B less fine-tuned')}"
        ),
        figures=figures,
        bed={
            "accuracy of the large network": of("large"),
            "gained in the last quarter of training": mean(rows, "large, twice as long", "last_quarter"),
            "gained by training twice as long": of("large, twice as long") - of("large"),
            "lost with half of the multiply-accumulates": of("large") - max(kept),
        },
        notes=(
            f"Where inherited weights get the whole recipe instead of a fine-tuning, Scratch-B is ahead by "
            f"{listed('scratch-B less retrained')}. Lottery tickets less new weights under their mask: {tickets}. "
            "`spent` counts multiply-accumulates in units of the large network's training, which is charged to all "
            "that need it."
        ),
    )
