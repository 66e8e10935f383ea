"""What Guo et al. say of vector scaling, measured here."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from netwright.calibrate.fitting import follow, minimise, validation_logits
from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.calibrate.vector_scaling import Vector, VectorScaling
from netwright.claims.calibrate.bed import SETTING, measure_arms, percents
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean
from netwright.core.budget import Budget
from netwright.core.task import Task

CLAIM = Claim(
    slug="vector-scaling",
    paper=(
        "as good as temperature scaling and no better: ECE of a ResNet-110 on CIFAR-100 from 16.5 % to 1.3 %, the "
        "fitted factors nearly equal"
    ),
    setting=f"{SETTING}; 'offsets' fits an offset per class and one factor for all",
    holds_if=(
        "ECE and NLL below the uncalibrated network's, both 95 % intervals below 0; mean ECE within half a point of "
        "that of temperature scaling; and no better: the 95 % interval of the difference in NLL from temperature "
        "scaling holds 0; mixed if only the first part holds"
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


def measure(scale: Scale) -> Measured:
    methods = {"vector": VectorScaling(), "offsets": Offsets(), "temperature": TemperatureScaling()}
    return verdict(measure_arms(scale, methods))


def verdict(rows: list[dict[str, Any]]) -> Measured:
    figures = {
        f"{name}: vector less {other}": difference(rows, "vector", other, name)
        for other in ("uncalibrated", "temperature", "offsets")
        for name in ("ece", "nll", "accuracy", "classwise_ece")
    }
    better = all(figures[f"{k}: vector less uncalibrated"]["interval"][1] < 0 for k in ("ece", "nll"))
    level = abs(figures["ece: vector less temperature"]["mean"]) <= 0.005
    low, high = figures["nll: vector less temperature"]["interval"]
    nll = {arm: mean(rows, arm, "nll") for arm in ARMS}
    return Measured(
        rows,
        "holds" if better and level and low <= 0 <= high else "mixed" if better else "does not hold here",
        f"ECE on test: {percents(rows, ARMS, 'ece')}; NLL: {', '.join(f'{a} {v:.3f}' for a, v in nll.items())}; "
        f"accuracy: {percents(rows, ARMS, 'accuracy')}; vector scaling is "
        f"{figures['nll: vector less temperature']['mean']:+.3f} [{low:+.3f}, {high:+.3f}] from temperature scaling "
        "in NLL.",
        figures,
        notes=note(rows, nll) if high < 0 else "",
    )


def note(rows: list[dict[str, Any]], nll: dict[str, float]) -> str:
    """Where vector scaling's advantage over temperature scaling lies, as far as the figures show it."""
    share = (nll["temperature"] - nll["offsets"]) / (nll["temperature"] - nll["vector"])
    return (
        f"Of what vector scaling wins in NLL over temperature scaling, {100 * share:.0f} % is also had with one "
        f"factor for all classes and an offset for each. Class-wise ECE: {percents(rows, ARMS, 'classwise_ece', 2)}."
    )
