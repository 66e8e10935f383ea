"""Searched shares per layer against one rule for all layers, at the same budget."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.pruning import row
from netwright.claims.beds.trained import testbed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import difference, differences, mean, told
from netwright.compress.parts.prune import Prune
from netwright.core.budget import Budget, Target
from netwright.search.linas_pruning import LinasPruning

CLAIM = Claim(
    slug="linas-pruning",
    paper="a search on measured candidates finds better sub-networks than a fixed rule (no figure for pruning)",
    setting=(
        "digits, CNN 16-32-64; half of the multiply-accumulates to be removed; 30 epochs of examples for every arm, of "
        "which the search may take half; global Taylor and magnitude pruning use all of them to fine-tune"
    ),
    rule=Rule(
        holds=(Part("accuracy: searched less taylor", "above"),),
        bed=(Part("macs_kept: searched less taylor", "within", 0.02),),
    ),
)
BUDGET = Budget(epochs=30, target=Target(faster=2.0))


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        network, task = testbed("digits-cnn", seed)
        network = network.to(scale.device)
        arms = {
            "searched": LinasPruning(epochs=30, seed=seed),
            "taylor": Prune(importance="taylor", ratio=0.5, epochs=30, round_to=1, seed=seed),
            "magnitude": Prune(importance="magnitude", ratio=0.5, epochs=30, round_to=1, seed=seed),
        }
        rows.append(row("unpruned", seed, network, task, network))
        rows += [row(arm, seed, method(network, task, BUDGET), task, network) for arm, method in arms.items()]
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures = differences(rows, "searched", ("taylor", "magnitude"), ("accuracy",))
    percent = lambda arm: (
        f"{100 * mean(rows, arm, 'accuracy'):.1f} % at {100 * mean(rows, arm, 'macs_kept'):.0f} %"
    )
    return Measured(
        summary=(
            f"searched {percent('searched')} of the MACs, Taylor {percent('taylor')}, magnitude "
            f"{percent('magnitude')}; searched is {told(figures['accuracy: searched less taylor'])} points from Taylor"
        ),
        figures=figures,
        bed={
            "accuracy before": mean(rows, "unpruned", "accuracy"),
            "macs_kept: searched less taylor": difference(rows, "searched", "taylor", "macs_kept"),
        },
        notes=(
            "Without a clock in the budget the search counts multiply-accumulates where it would time networks. "
            "Accuracies are compared only where both arms keep as many of them."
        ),
    )
