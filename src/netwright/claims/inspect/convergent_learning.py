"""What Li et al. say of convergent learning, measured here."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from netwright.claims.beds.trained import convergence, fresh, testbed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, estimate, mean, told
from netwright.core.errors import BadInput
from netwright.core.network import seeded
from netwright.core.split import take
from netwright.inspect.convergent_learning import ConvergentLearning
from netwright.inspect.convergent_learning.alignment import block_overlap, blocks, one_to_one, strengths

BED = "fashion"
LAYERS = ("stage1.0.relu2", "stage2.0.relu2", "stage3.0.relu2")  # 16, 32 and 64 units
IMAGES = 1000
OFTEN, SELDOM = 0.7, 0.4
CLAIM = Claim(
    slug="convergent-learning",
    paper=(
        "of four AlexNets that differ in their seed, some units are learned again and again and others are not; what "
        "agrees is rather the subspace that a group of units spans than its units; no single figure"
    ),
    setting=(
        "Fashion-MNIST, ResNet-8 of width 16 trained to the end (the bed 'fashion'), a network per seed, every pair of "
        "them; units are channels behind the last ReLU of each stage over all positions of 1,000 test images. "
        "Baselines: the same networks before training, pairing at random, blocks of the same sizes whose units are "
        "drawn at random. 'Recurs': rank correlation over a network's units of how well each is matched in one other "
        "network and in another. 'Beyond the common': the first principal component of both networks' units together, "
        "which is little more than the brightness of the picture, taken out of all correlations"
    ),
    rule=Rule(
        holds=(
            Part("recurs, beyond the common, trained", "above"),
            Part("matched_beyond: trained less untrained", "above"),
            Part("subspaces: trained less random blocks", "above"),
            Part("subspaces: trained less its units", "above"),
        ),
        mixed=(
            (
                Part("recurs, beyond the common, trained", "above"),
                Part("matched_beyond: trained less untrained", "above"),
            ),
        ),
        bed=(
            Part("accuracy of the networks", "at least", 0.92),
            Part("gained in the last quarter of training", "at most", 0.003),
        ),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    if len(scale.seeds) < 3:
        raise BadInput(
            "convergent learning asks for three seeds: a unit recurs in two other networks, or does not"
        )
    trained = [testbed(BED, seed, scale.device) for seed in scale.seeds]
    shown = [convergence(BED, seed) for seed in scale.seeds]
    data = take(trained[0][1].test, IMAGES, seed=0)
    arms = {
        "trained": [network for network, _ in trained],
        "untrained": [fresh(BED, seed)[0].eval() for seed in scale.seeds],
    }
    rows: list[dict[str, Any]] = []
    for arm, networks in arms.items():
        networks = [network.to(scale.device) for network in networks]
        found = ConvergentLearning(layers=LAYERS)(networks[0], networks[1:], data)
        rows += pairs(arm, found.data, len(networks))
        for row in recurrence(arm, found.data, len(networks)):
            if arm == "trained":
                at = shown[row["seed"]]
                row |= {"accuracy": at.accuracy, "last_quarter": at.last_quarter}
            rows.append(row)
    return rows


def pairs(arm: str, found: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """A row per pair of networks, means over the layers; and one of the blocks of random units."""
    for number, (i, j) in enumerate(combinations(range(count), 2)):
        details = [found[f"{layer}: {i} and {j}"] for layer in LAYERS]
        plain = [np.array(d["correlation"]) for d in details]
        beyond = [without_the_common(d)[2] for d in details]
        matched = [matching(between) for between in beyond]
        blocked = [weighted(d["blocks"]) for d in details]
        row: dict[str, Any] = {"arm": arm, "seed": number}
        for k, d in enumerate(details, 1):
            row[f"matched, layer {k}"] = float(np.mean(d["strength"]))
            row[f"matched beyond, layer {k}"] = float(matched[k - 1].mean())
        row |= {
            "matched": float(np.mean([matching(b).mean() for b in plain])),
            "matched_beyond": float(np.mean([m.mean() for m in matched])),
            "paired at random": float(np.mean([b.mean() for b in plain])),
            "often": float(np.mean([(m > OFTEN).mean() for m in matched])),
            "seldom": float(np.mean([(m < SELDOM).mean() for m in matched])),
            "subspaces": float(np.mean([s for s, _ in blocked])),
        }
        yield row
        yield {
            "arm": f"{arm}: its units",
            "seed": number,
            "subspaces": float(np.mean([u for _, u in blocked])),
        }
        drawn = [weighted(random_blocks(d, number))[0] for d in details]
        yield {"arm": f"{arm}: random blocks", "seed": number, "subspaces": float(np.mean(drawn))}


def recurrence(arm: str, found: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """A row per network: is a unit that one other network has also in the next? Means over layers and others."""
    for i in range(count):
        others = [j for j in range(count) if j != i]
        row: dict[str, Any] = {"arm": f"{arm}: recurrence", "seed": i}
        for name, taken in (("recurs", False), ("recurs_beyond", True)):
            ranks = []
            for layer in LAYERS:
                by_partner = {}
                for j in others:
                    detail = found[f"{layer}: {min(i, j)} and {max(i, j)}"]
                    between = without_the_common(detail)[2] if taken else np.array(detail["correlation"])
                    by_partner[j] = matching(between if i < j else between.T)
                ranks += [
                    spearmanr(by_partner[a], by_partner[b]).statistic for a, b in combinations(others, 2)
                ]
            row[name] = float(np.mean(ranks))
        yield row


def matching(between: np.ndarray) -> np.ndarray:
    """Correlation (A,) of each unit with its partner in the matching of largest total correlation."""
    return strengths(between, one_to_one(between))


def without_the_common(detail: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlations within the first, within the second and between, once the first principal component of both
    networks' standardised units together is taken out. A unit that is nothing else has 0 with everything."""
    first, second = np.array(detail["within_first"]), np.array(detail["within_second"])
    between = np.array(detail["correlation"])
    joint = np.block([[first, between], [between.T, second]])
    values, vectors = np.linalg.eigh(joint)
    left = joint - values[-1] * np.outer(vectors[:, -1], vectors[:, -1])
    size = np.sqrt(np.clip(left.diagonal(), 0, None))
    size = np.where(size > 1e-6, size, np.inf)
    left = left / size[:, None] / size[None]
    a = len(first)
    return left[:a, :a], left[a:, a:], left[:a, a:]


def random_blocks(detail: dict[str, Any], seed: int) -> list[dict[str, float]]:
    """Blocks of the same sizes whose units are drawn at random."""
    between = np.array(detail["correlation"])
    one, two = blocks(between, max(2, len(between) // 4), seed=0)
    with seeded(seed):
        shuffled = (one[torch.randperm(len(one)).numpy()], two[torch.randperm(len(two)).numpy()])
    return block_overlap(
        np.array(detail["within_first"]), np.array(detail["within_second"]), between, shuffled
    )


def weighted(found: list[dict[str, float]]) -> tuple[float, float]:
    """Overlap of the blocks' subspaces and of their units, weighted by size."""
    if not found:
        return 0.0, 0.0
    sizes = [min(block["first"], block["second"]) for block in found]
    return (
        float(np.average([block["subspace"] for block in found], weights=sizes)),
        float(np.average([block["units"] for block in found], weights=sizes)),
    )


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures: dict[str, Any] = differences(rows, "trained", ("untrained",), ("matched", "matched_beyond"))
    figures |= differences(rows, "trained", ("trained: random blocks", "trained: its units"), ("subspaces",))
    figures["correlation of units paired at random"] = mean(rows, "trained", "paired at random")
    for arm in ("trained", "untrained"):
        for name, key in (("recurs", "recurs"), ("recurs, beyond the common", "recurs_beyond")):
            values = [row[key] for row in rows if row["arm"] == f"{arm}: recurrence"]
            figures[f"{name}, {arm}"] = estimate(values)
        figures |= {
            f"share matched above {OFTEN}, beyond the common, {arm}": mean(rows, arm, "often"),
            f"share matched below {SELDOM}, beyond the common, {arm}": mean(rows, arm, "seldom"),
        }
    by_layer = ", ".join(
        f"{mean(rows, 'trained', f'matched beyond, layer {k}'):.2f} "
        f"({mean(rows, 'untrained', f'matched beyond, layer {k}'):.2f})"
        for k in range(1, len(LAYERS) + 1)
    )
    recurs = figures["recurs, beyond the common, trained"]
    return Measured(
        summary=(
            f"how well a unit is matched in one network says how well in another: rank correlation "
            f"{told(recurs, factor=1)} (untrained {figures['recurs, beyond the common, untrained']['mean']:+.2f}); "
            f"{100 * mean(rows, 'trained', 'often'):.0f} % of the units are matched above {OFTEN}, "
            f"{100 * mean(rows, 'trained', 'seldom'):.0f} % below {SELDOM}; mean by layer {by_layer} (untrained), all "
            f"beyond the common component; subspaces {mean(rows, 'trained', 'subspaces'):.2f}, random blocks "
            f"{mean(rows, 'trained: random blocks', 'subspaces'):.2f}, units "
            f"{mean(rows, 'trained: its units', 'subspaces'):.2f}"
        ),
        figures=figures,
        bed={
            "accuracy of the networks": mean(rows, "trained: recurrence", "accuracy"),
            "gained in the last quarter of training": mean(rows, "trained: recurrence", "last_quarter"),
        },
        notes=(
            "Subspace overlap is the mean cosine of all principal angles of a block, the weakest included. The paper "
            "has neither untrained networks nor the component taken out: units of random weights that follow the "
            "brightness of the same pictures are matched well, which is no evidence of learned features. The matching "
            "agrees with SciPy's in the tests, and taking the component out with a regression; one component need "
            "not hold all that random filters share, the edges of the same pictures above all."
        ),
    )
