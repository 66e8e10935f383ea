"""What Li et al. say of convergent learning, measured here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import torch

from netwright.claims.beds.trained import fresh, testbed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import difference, mean
from netwright.core.network import seeded
from netwright.core.split import take
from netwright.inspect.convergent_learning import ConvergentLearning
from netwright.inspect.convergent_learning.alignment import block_overlap, blocks

LAYERS = ("relu1", "relu2", "relu3")
NETWORKS, IMAGES = 4, 1000
PARTS = (
    "matched is above random pairing",
    "matched is above untrained",
    "the first layer is above the second",
    "subspaces are above units",
)
CLAIM = Claim(
    slug="convergent-learning",
    paper=(
        "of four AlexNets that differ in their seed, some units are learned again and again and others are not; what "
        "agrees is rather the subspace that a group of units spans than its units; no single figure"
    ),
    setting=(
        "Fashion-MNIST, CNN 16-32-64 trained 20 epochs on 3,000 images, 4 seeds, 6 pairs; units are channels behind "
        "each ReLU over all positions of 1,000 test images; baselines: pairing at random, and networks before training"
    ),
    rule=Rule(holds=tuple(Part(f"pairs in which {part}", "at least", 6) for part in PARTS)),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    count = max(NETWORKS, len(scale.seeds))
    trained = [testbed("fashion-overconfident", seed) for seed in range(count)]
    data = take(trained[0][1].test, IMAGES, seed=0)
    networks = [network.to(scale.device) for network, _ in trained]
    untrained = [fresh("fashion-overconfident", seed)[0].to(scale.device) for seed in range(count)]
    rows: list[dict[str, Any]] = []
    for arm, members in {"trained": networks, "untrained": untrained}.items():
        found = ConvergentLearning(layers=LAYERS)(members[0], members[1:], data)
        pairs = {pair: number for number, pair in enumerate(combinations(range(count), 2))}
        table = {(row["layer"], pairs[row["first"], row["second"]]): row for row in found.table()}
        for (i, j), number in pairs.items():
            row: dict[str, Any] = {"arm": arm, "seed": number}
            for at, layer in enumerate(LAYERS, 1):
                values = table[layer, number]
                detail = found.data[f"{layer}: {i} and {j}"]
                row |= {
                    f"{key}_{at}": values[key]
                    for key in ("matched", "semi_matched", "subspace_overlap", "unit_overlap")
                }
                row[f"error_1_weight_{at}"] = values["error_1_weights"]
                row[f"error_10_weights_{at}"] = values["error_10_weights"]
                row[f"random_{at}"] = float(np.mean(detail["correlation"]))
                row[f"random_blocks_{at}"] = random_blocks(detail, number)
            rows.append(row)
    return rows


def random_blocks(detail: dict[str, Any], seed: int) -> float:
    """Subspace overlap of blocks of the same sizes whose units are drawn at random."""
    between = np.array(detail["correlation"])
    one, two = blocks(between, max(2, len(between) // 4), seed=0)
    with seeded(seed):
        shuffled = (one[torch.randperm(len(one)).numpy()], two[torch.randperm(len(two)).numpy()])
    found = block_overlap(
        np.array(detail["within_first"]), np.array(detail["within_second"]), between, shuffled
    )
    sizes = [min(b["first"], b["second"]) for b in found]
    return float(np.average([b["subspace"] for b in found], weights=sizes)) if found else 0.0


def judge(rows: list[dict[str, Any]]) -> Measured:
    ours = [row for row in rows if row["arm"] == "trained"]
    before = {row["seed"]: row for row in rows if row["arm"] == "untrained"}
    layers = range(1, len(LAYERS) + 1)
    tests: tuple[Callable[[dict[str, Any]], bool], ...] = (
        lambda r: all(r[f"matched_{k}"] > r[f"random_{k}"] for k in layers),
        lambda r: all(r[f"matched_{k}"] > before[r["seed"]][f"matched_{k}"] for k in layers),
        lambda r: r["matched_1"] > r["matched_2"],
        lambda r: all(r[f"subspace_overlap_{k}"] > r[f"unit_overlap_{k}"] for k in layers),
    )
    figures: dict[str, Any] = {
        f"pairs in which {part}": sum(test(row) for row in ours)
        for part, test in zip(PARTS, tests, strict=True)
    }
    for k in layers:
        figures[f"matched, layer {k}: trained less untrained"] = difference(
            rows, "trained", "untrained", f"matched_{k}"
        )
    listed = "; ".join(f"layer {k}: {_sentence(rows, k)}" for k in layers)
    failed = [part for part in PARTS if figures[f"pairs in which {part}"] < len(ours)]
    return Measured(
        f"mean correlation, {listed}.",
        figures,
        notes=(
            (f"Not so in all pairs: {', '.join(failed)}. " if failed else "")
            + "Subspace overlap is the mean cosine of all principal angles of a block, the weakest included; blocks of "
            "the same sizes whose units are drawn at random show what is due to the method. The paper has no untrained "
            "baseline: units with random weights match as well here, since all follow the brightness of the same "
            "pictures, so matched correlation alone is no evidence of learned features."
        ),
        seeds=tuple(range(NETWORKS)),
    )


def _sentence(rows: list[dict[str, Any]], layer: int) -> str:
    value = lambda name, arm="trained": f"{mean(rows, arm, f'{name}_{layer}'):.2f}"
    return (
        f"matched {value('matched')} (untrained {value('matched', 'untrained')}, at random {value('random')}), "
        f"subspaces {value('subspace_overlap')} (random blocks {value('random_blocks')}) "
        f"against units {value('unit_overlap')}"
    )
