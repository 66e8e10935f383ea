"""Eight operators side by side: does it matter which, and where does ReActNet's stand? Measured here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from netwright.claims.beds.quartered import quartered
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import difference
from netwright.compress.bibench import Subject, Tracks
from netwright.compress.bibench.corruptions import CORRUPTIONS
from netwright.compress.bibench.tracks import overall
from netwright.compress.parts.binary import OPERATORS
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.task import Task
from netwright.data import task as named_task
from netwright.models import build

EPOCHS = {"cnn": 4.0, "mlp": 12.0}
OVER = "variance between operators over that between seeds, {}"
RANK = "rank of react among eight"
CLAIM = Claim(
    slug="bibench",
    paper=(
        "the operator decides what a binary network reaches, and accuracy varies with task and architecture; "
        "ReActNet's is among the best on most tracks"
    ),
    setting=(
        "a CNN with batch norm of widths 16, 32, 64, 64 on 3,000 images of Fashion-MNIST at 14 x 14, and an MLP of "
        "three hidden layers of 128 on the 8 x 8 digits, each trained in float first, then with each operator from "
        "those weights for 4 and 12 epochs (Adam 1e-3, cosine), three seeds of data, weights and order; accuracy on "
        "test data over the float network's, on clean data and on five corruptions; operators are ranked by the "
        "quadratic mean over the two tasks, averaged over seeds"
    ),
    rule=Rule(
        holds=(
            Part(OVER.format("cnn"), "at least", 1.0),
            Part(OVER.format("mlp"), "at least", 1.0),
            Part(RANK, "at most", 3),
        ),
        bed=(
            Part("accuracy of float, cnn", "at least", 0.75),
            Part("accuracy of float, mlp", "at least", 0.93),
            Part("ratio, mean of operators", "at most", 0.99),
            Part("ratio, mean of operators", "at least", 0.5),
        ),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        for kind, epochs in EPOCHS.items():
            network, task = trained(kind, seed)
            reached = evaluate(network, task, "test")["accuracy"]
            rows.append({"arm": "float", "kind": kind, "seed": seed, "accuracy": reached})
            tracks = Tracks(epochs=epochs, batch_size=64, rates=(1e-3,), seeds=(seed,), rounds=5)
            for row in tracks(Subject(kind, network, task)).data["rows"]:
                corrupted = overall(row[name] for name in CORRUPTIONS)
                rows.append(
                    {
                        "arm": row["operator"], "kind": kind, "seed": seed, "ratio": row["clean"],
                        "corrupted": corrupted, "training": row["training"], "inference": row["inference"],
                        "smaller": row["smaller"], "fewer": row["fewer"],
                    }
                )  # fmt: skip
    return rows


def trained(kind: str, seed: int) -> tuple[nn.Module, Task]:
    """The float network and its task."""
    with seeded(seed):
        if kind == "cnn":
            task = quartered(3000, 2000, seed)
            network = build("cnn", task.input_shape, task.outputs, widths=(16, 32, 64, 64))
            fit = Fit(epochs=6, batch_size=64, lr=3e-3, seed=seed)
        else:
            task = named_task("digits")
            width, inputs = 128, int(np.prod(task.input_shape))
            hidden = [
                layer
                for into in (inputs, width, width)
                for layer in (nn.Linear(into, width), nn.BatchNorm1d(width), nn.ReLU())
            ]
            network = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, task.outputs))
            fit = Fit(epochs=15, batch_size=64, lr=3e-3, seed=seed)
    fit(network, task)
    return network, task


def spread(rows: Sequence[dict[str, Any]], kind: str) -> float:
    """Variance of the operators' means over the mean variance between seeds of one operator. Operators that do the same
    would have a third of 1 at three seeds, on average."""
    table = np.array([_ratios(rows, kind, operator) for operator in OPERATORS])
    return float(table.mean(1).var(ddof=1) / max(table.var(1, ddof=1).mean(), 1e-12))


def _ratios(rows: Sequence[dict[str, Any]], kind: str, operator: str, figure: str = "ratio") -> list[float]:
    return [row[figure] for row in rows if row["kind"] == kind and row["arm"] == operator]


def judge(rows: list[dict[str, Any]]) -> Measured:
    means = {op: {k: float(np.mean(_ratios(rows, k, op))) for k in EPOCHS} for op in OPERATORS}
    scores = {op: overall(found.values()) for op, found in means.items()}
    order = sorted(scores, key=lambda op: -scores[op])
    figures: dict[str, Any] = {
        RANK: order.index("react") + 1,
        **{OVER.format(kind): spread(rows, kind) for kind in EPOCHS},
        **{f"task track, {op}": score for op, score in scores.items()},
        **{f"ratio, {op}, {k}": means[op][k] for op in OPERATORS for k in EPOCHS},
        **{
            f"corrupted, {op}": overall(np.mean(_ratios(rows, k, op, "corrupted")) for k in EPOCHS)
            for op in OPERATORS
        },
        **{
            f"{k}: ratio: {order[0]} less {order[-1]}": difference(
                [r for r in rows if r["kind"] == k], order[0], order[-1], "ratio"
            )
            for k in EPOCHS
        },
        **{f"times smaller, {k}": max(r["smaller"] for r in rows if r["kind"] == k and "smaller" in r) for k in EPOCHS},
        **{
            f"times faster on one example, {op}, cnn": float(np.median(_ratios(rows, "cnn", op, "inference")))
            for op in OPERATORS
        },
    }  # fmt: skip
    said = ", ".join(f"{op} {100 * scores[op]:.1f} %" for op in order)
    floats = {k: [r["accuracy"] for r in rows if r["arm"] == "float" and r["kind"] == k] for k in EPOCHS}
    return Measured(
        summary=(
            f"of the float networks' accuracy: {said}; between operators the variance is "
            f"{figures[OVER.format('cnn')]:.1f} times that between seeds for the CNN and "
            f"{figures[OVER.format('mlp')]:.1f} times for the MLP"
        ),
        figures=figures,
        bed={
            **{f"accuracy of float, {k}": float(np.mean(values)) for k, values in floats.items()},
            "ratio, mean of operators": float(np.mean([r["ratio"] for r in rows if "ratio" in r])),
        },
        notes=(
            "Short trainings that start from float weights: what longer ones from new weights would reach is not said. "
            "All operators have batch norm before their signs, which takes over a part of what ReActNet's shifts do. "
            "With so few channels a layer's own overhead is most of its time: see benchmarks/binary_conv.py for speed."
        ),
    )
