"""Searched shares per layer against rules for all layers, at equal multiply-accumulates and equal budget."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.pruning import CONVERGED, EPOCHS, bed_of, prune_arm, pruned, row
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import difference, differences, mean, told
from netwright.core.budget import Budget, Target
from netwright.search.linas_pruning import LinasPruning

RULES = {
    "taylor": {"importance": "taylor"},
    "magnitude": {"importance": "magnitude"},
    "taylor, every layer alike": {"importance": "taylor", "scope": "layer"},
}
EQUAL = "macs_kept: searched less taylor"
CLAIM = Claim(
    slug="linas-pruning",
    paper="a search on measured candidates finds better sub-networks than a fixed rule (no figure for pruning)",
    setting=(
        "Fashion-MNIST, ResNet-8 of width 16 trained to the end on all 60,000 images (the bed 'fashion'), 6 groups of "
        "units, 4,096 choices; the search is asked to halve the latency, for which it removes 60 % of the "
        "multiply-accumulates; then the rules remove as many. Half an epoch of examples for every arm, of which the "
        "search takes half, while the rules fine-tune with all of them (AdamW 1e-3, cosine); 5,000 test images"
    ),
    rule=Rule(
        holds=(Part("accuracy: searched less taylor", "above"),),
        bed=(*CONVERGED, Part(EQUAL, "within", 0.02)),
    ),
)
BUDGET = Budget(epochs=EPOCHS, target=Target(faster=2.0))


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        found, network, task = pruned({}, seed, scale)
        searched = LinasPruning(epochs=EPOCHS, seed=seed)(network, task, BUDGET)
        found.append(row("searched", seed, searched, task, network))
        ratio = 1 - found[-1]["macs_kept"]
        for arm, settings in RULES.items():
            small = prune_arm(ratio=ratio, seed=seed, **settings)(network, task, Budget())
            found.append(row(arm, seed, small, task, network))
        rows += found
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures = differences(rows, "searched", RULES, ("accuracy",))
    percent = lambda arm: (
        f"{100 * mean(rows, arm, 'accuracy'):.2f} % at {100 * mean(rows, arm, 'macs_kept'):.0f} %"
    )
    gaps = ", ".join(f"{told(figures[f'accuracy: searched less {arm}'])} from {arm}" for arm in RULES)
    return Measured(
        summary=f"searched {percent('searched')} of the MACs, Taylor {percent('taylor')}; in points: {gaps}",
        figures=figures,
        bed={**bed_of(rows), EQUAL: difference(rows, "searched", "taylor", "macs_kept")},
        notes=(
            "Without a clock in the budget the search counts multiply-accumulates where it would time networks. "
            "Accuracies are compared only where both arms keep as many of them."
        ),
    )
