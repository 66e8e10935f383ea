"""What Guo et al. say of vector scaling, measured here."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from netwright.calibrate.parts.fitting import follow, minimise, validation_logits
from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.calibrate.vector_scaling import Vector, VectorScaling
from netwright.claims.beds.overconfident import OVERCONFIDENT, SETTING, bed_of, measure_arms, percents
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean, told
from netwright.core.budget import Budget
from netwright.core.task import Task

BETTER = tuple(Part(f"{name}: vector less uncalibrated", "below") for name in ("ece", "nll"))
CLAIM = Claim(
    slug="vector-scaling",
    paper=(
        "as good as temperature scaling and no better: ECE of a ResNet-110 on CIFAR-100 from 16.5 % to 1.3 %, the "
        "fitted factors nearly equal"
    ),
    setting=f"{SETTING}; 'offsets' fits an offset per class and one factor for all",
    rule=Rule(
        holds=(
            *BETTER,
            Part("ece: vector less temperature", "within", 0.005),
            Part("nll: vector less temperature", "around"),
        ),
        mixed=(BETTER,),
        bed=OVERCONFIDENT,
    ),
)
ARMS = ("uncalibrated", "temperature", "offsets", "vector")


class Offsets:
    """Vector scaling with one factor for all classes: what is left of it where the fitted factors are equal."""

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        logits, targets = validation_logits(network, task)
        logits = logits.double()
        factor, bias = torch.ones(1, dtype=logits.dtype), torch.zeros(logits.shape[1], dtype=logits.dtype)
        cost = lambda: F.cross_entropy(logits * factor + bias, targets)
        minimise((factor, bias), cost, budget.start(), "one factor, an offset per class")
        return follow(network, Vector(factor.expand_as(bias).clone(), bias - bias.mean()), task)


def measure(scale: Scale) -> list[dict[str, Any]]:
    methods = {"vector": VectorScaling(), "offsets": Offsets(), "temperature": TemperatureScaling()}
    return measure_arms(scale, methods)


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures = differences(
        rows,
        "vector",
        ("uncalibrated", "temperature", "offsets"),
        ("ece", "nll", "accuracy", "classwise_ece"),
    )
    gap = figures["nll: vector less temperature"]
    nll = {arm: mean(rows, arm, "nll") for arm in ARMS}
    return Measured(
        f"ECE on test: {percents(rows, ARMS, 'ece')}; NLL: {', '.join(f'{a} {v:.3f}' for a, v in nll.items())}; "
        f"accuracy: {percents(rows, ARMS, 'accuracy')}; vector scaling is {told(gap, 1, 3)} from temperature scaling "
        "in NLL.",
        figures,
        bed=bed_of(rows),
        notes=note(rows, nll) if gap["high"] < 0 else "",
    )


def note(rows: list[dict[str, Any]], nll: dict[str, float]) -> str:
    """Where vector scaling's advantage over temperature scaling lies, as far as the figures show it."""
    share = (nll["temperature"] - nll["offsets"]) / (nll["temperature"] - nll["vector"])
    return (
        f"Of what vector scaling wins in NLL over temperature scaling, {100 * share:.0f} % is also had with one "
        f"factor for all classes and an offset for each. Class-wise ECE: {percents(rows, ARMS, 'classwise_ece', 2)}."
    )
