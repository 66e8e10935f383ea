"""Pruned, or simply smaller? The referee's claim, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import difference, mean
from netwright.compress.parts.prune import Prune
from netwright.compress.rethink import Rethink
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.measure.cost import cost
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.weights.initialise import reinitialised
from netwright.data import task as named_task
from netwright.models import build

EPOCHS, TUNING = 16, 4
CASES = {
    f"{name} {ratio}": Prune(importance=importance, scope=scope, ratio=ratio, epochs=0, round_to=1)  # type: ignore[arg-type]
    for ratio in (0.5, 0.75)
    for name, importance, scope in (
        ("L1, layer", "magnitude", "layer"),
        ("Taylor, global", "taylor", "global"),
    )
}
CLAIM = Claim(
    slug="rethink",
    paper="VGG-16 on CIFAR-10, L1 filters: 93.41 fine-tuned, 93.62 Scratch-E, 93.78 Scratch-B",
    setting=(
        "CNN of widths 16-32-64, Fashion-MNIST, 2,000 training images, 16 epochs of AdamW at 3e-3 with a cosine; "
        "pruned to half and to a quarter of the multiply-accumulates, alike in every layer by L1 norm and globally by "
        "Taylor importance; fine-tuned for 4 epochs at 1e-3 (a quarter of the training, as in the paper), or new "
        "weights for 16 epochs (E) or for as many multiply-accumulates as the large one had (B); all test images"
    ),
    rule=Rule(
        holds=tuple(Part(f"scratch-B against fine-tune, {case}", "at least", -0.003) for case in CASES),
        bed=(Part("accuracy of the large network", "at least", 0.9),),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        task = named_task("fashion-mnist", limit=2000)
        with seeded(seed):
            large = build("cnn", task.input_shape, task.outputs, widths=(16, 32, 64))
        recipe = Fit(epochs=EPOCHS, batch_size=64, lr=3e-3, seed=seed)
        recipe(large, task)
        heavy = cost(large, task.example()).macs
        row = {"arm": "large", "case": "", "seed": seed, "epochs": EPOCHS, "spent": 1.0}
        rows.append({**row, "macs": heavy, "accuracy": evaluate(large, task, "test")["accuracy"]})
        for case, pruner in CASES.items():
            pruned = pruner(large, task, Budget())
            light = cost(pruned, task.example()).macs
            longer = Rethink(epochs=EPOCHS, training="scratch-B").length(large, pruned, task)
            arms = {
                "fine-tune": (pruned, TUNING, 1e-3),
                "scratch-E": (reinitialised(pruned, seed), EPOCHS, 3e-3),
                "scratch-B": (reinitialised(pruned, seed), longer, 3e-3),
            }
            for arm, (network, epochs, lr) in arms.items():
                Fit(epochs=epochs, batch_size=64, lr=lr, seed=seed)(network, task)
                # in units of the large network's training, which fine-tuning needs too
                spent = epochs * light / (EPOCHS * heavy) + (arm == "fine-tune")
                found = evaluate(network, task, "test")["accuracy"]
                rows.append(
                    {
                        "arm": f"{arm} ({case})", "case": case, "seed": seed, "epochs": epochs, "spent": spent,
                        "macs": light, "accuracy": found,
                    }
                )  # fmt: skip
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures = {
        f"{arm} against fine-tune, {case}": difference(
            rows, f"{arm} ({case})", f"fine-tune ({case})", "accuracy"
        )
        for arm in ("scratch-B", "scratch-E")
        for case in CASES
    }
    told = "; ".join(
        f"{case}: {100 * figures[f'scratch-B against fine-tune, {case}']['mean']:+.2f}" for case in CASES
    )
    return Measured(
        summary=(
            f"Scratch-B against fine-tuning, in points: {told}; the large network reaches "
            f"{100 * mean(rows, 'large', 'accuracy'):.2f} %"
        ),
        figures=figures,
        bed={"accuracy of the large network": mean(rows, "large", "accuracy")},
        notes=(
            "`spent` counts multiply-accumulates in units of the large network's training; fine-tuning pays for that "
            "training too."
        ),
    )
