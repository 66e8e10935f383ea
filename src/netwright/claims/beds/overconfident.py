"""The same overconfident networks for all claims about calibration: fitted on half of validation, measured on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from netwright.claims.beds.trained import testbed
from netwright.claims.record import Scale
from netwright.claims.rule import Part
from netwright.claims.statistics import mean
from netwright.core.budget import Budget
from netwright.core.contracts import Transform
from netwright.core.metrics import adaptive_ece, classwise_ece, outputs_of, score
from netwright.core.split import take

SETTING = (
    "Fashion-MNIST, CNN 16-32-64 trained 20 epochs on 3,000 images without augmentation or weight decay; "
    "calibrators are fitted on a random half of the validation images (2,500), all figures on the 5,000 test images"
)

# a network that is right about how sure it is leaves nothing to mend
OVERCONFIDENT = (Part("ece before", "at least", 0.02),)


def bed_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Why there is something to calibrate: accuracy and calibration error of the network as it is."""
    return {
        "accuracy before": mean(rows, "uncalibrated", "accuracy"),
        "ece before": mean(rows, "uncalibrated", "ece"),
    }


def measure_arms(scale: Scale, arms: Mapping[str, Transform]) -> list[dict[str, Any]]:
    """A row per seed for the network as it is and for each calibrator: all of them see the same half."""
    rows = []
    for seed in scale.seeds:
        network, task = testbed("fashion-overconfident", seed)
        network = network.to(scale.device)
        half = replace(task, val=take(task.val, len(task.val) // 2, seed))
        calibrated = {name: method(network, half, Budget()) for name, method in arms.items()}
        for arm, subject in {"uncalibrated": network, **calibrated}.items():
            outputs, targets = outputs_of(subject, task.test)
            p = outputs.double().softmax(1)
            rows.append(
                {
                    "arm": arm, "seed": seed, **score(outputs, targets, "classification"),
                    "adaptive_ece": adaptive_ece(p, targets), "classwise_ece": classwise_ece(p, targets),
                }
            )  # fmt: skip
    return rows


def percents(rows: Sequence[dict[str, Any]], arms: Sequence[str], figure: str, digits: int = 1) -> str:
    """'arm 1.2 %, other 3.4 %': the mean figure of each arm."""
    return ", ".join(f"{arm} {100 * mean(rows, arm, figure):.{digits}f} %" for arm in arms)
