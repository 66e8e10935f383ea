"""What Li et al. say of convergent learning, measured here."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import torch

from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean
from netwright.claims.testbeds import fresh, testbed
from netwright.core.network import seeded
from netwright.core.split import take
from netwright.inspect.alignment import block_overlap, blocks
from netwright.inspect.convergent_learning import ConvergentLearning

LAYERS = ("relu1", "relu2", "relu3")
NETWORKS, IMAGES = 4, 1000
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
    holds_if=(
        "in all 6 pairs: matched correlation above random pairing and above untrained networks in every layer, that of "
        "the first layer above that of the second, and subspace overlap above unit overlap in every layer; mixed if "
        "some of the four parts hold in all pairs"
    ),
)


def measure(scale: Scale) -> Measured:
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
    return judged(rows, tuple(range(count)))


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


def judged(rows: list[dict[str, Any]], seeds: tuple[int, ...]) -> Measured:
    ours = [row for row in rows if row["arm"] == "trained"]
    before = {row["seed"]: row for row in rows if row["arm"] == "untrained"}
    layers = range(1, len(LAYERS) + 1)
    parts = {
        "above random pairing": all(r[f"matched_{k}"] > r[f"random_{k}"] for r in ours for k in layers),
        "above untrained": all(
            r[f"matched_{k}"] > before[r["seed"]][f"matched_{k}"] for r in ours for k in layers
        ),
        "first layer above second": all(r["matched_1"] > r["matched_2"] for r in ours),
        "subspaces above units": all(
            r[f"subspace_overlap_{k}"] > r[f"unit_overlap_{k}"] for r in ours for k in layers
        ),
    }
    figures: dict[str, Any] = {name: bool(value) for name, value in parts.items()}
    for k in layers:
        figures[f"matched, layer {k}: trained less untrained"] = difference(
            rows, "trained", "untrained", f"matched_{k}"
        )
    listed = "; ".join(f"layer {k}: {_sentence(rows, k)}" for k in layers)
    failed = [name for name, value in parts.items() if not value]
    return Measured(
        rows,
        "holds" if not failed else "mixed" if len(failed) < len(parts) else "does not hold here",
        f"mean correlation, {listed}.",
        figures,
        notes=(
            (f"Does not hold in all pairs: {', '.join(failed)}. " if failed else "")
            + "Subspace overlap is the mean cosine of all principal angles of a block, the weakest included; blocks of "
            "the same sizes whose units are drawn at random show what is due to the method. The paper has no untrained "
            "baseline: units with random weights match as well here, since all follow the brightness of the same "
            "pictures, so matched correlation alone is no evidence of learned features."
        ),
        seeds=seeds,
    )


def _sentence(rows: list[dict[str, Any]], layer: int) -> str:
    value = lambda name, arm="trained": f"{mean(rows, arm, f'{name}_{layer}'):.2f}"
    return (
        f"matched {value('matched')} (untrained {value('matched', 'untrained')}, at random {value('random')}), "
        f"subspaces {value('subspace_overlap')} (random blocks {value('random_blocks')}) "
        f"against units {value('unit_overlap')}"
    )
