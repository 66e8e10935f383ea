"""Does the profile's redundancy tell which layers can spare units? There is no paper's figure to repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from netwright.claims.beds.trained import testbed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import column, differences, estimate, mean
from netwright.core.network import call
from netwright.core.split import Split
from netwright.core.taps import Taps, stream
from netwright.inspect.profile import Profile

LAYERS = tuple(f"relu{i}" for i in range(1, 9))
DRAWS, SHARE = 10, 0.5
CLAIM = Claim(
    slug="profile",
    seeds=5,
    paper=(
        "Roy and Vetterli define the effective rank as the real-valued dimension of what a matrix spans, without a "
        "figure about networks; what is tested is our use of it: layers whose units span few directions can spare more"
    ),
    setting=(
        "digits, CNN of 8 convolutions with 16 channels, 15 epochs, 5 seeds; in one layer at a time half of the "
        "channels, drawn at random 10 times, are held at their mean; rank correlation over the 8 layers of "
        "accuracy kept on test images with redundancy (1 - effective rank / channels) measured on validation images"
    ),
    rule=Rule(
        holds=(
            Part("rank correlation of effective rank", "above"),
            Part("rank_correlation: effective rank less depth", "above"),
        ),
        mixed=((Part("rank correlation of effective rank", "above"),),),
        bed=(Part("accuracy kept, widest difference between layers", "at least", 0.05),),
    ),
)


def kept(network: nn.Module, place: str, means: Tensor, data: Split, seed: int) -> float:
    """Accuracy with half of the channels held at their mean, over the draws."""
    random = torch.Generator().manual_seed(seed)
    hits = total = 0
    for _ in range(DRAWS):
        silent = torch.randperm(len(means), generator=random)[: round(SHARE * len(means))]

        def hold(value: Tensor, silent: Tensor = silent) -> Tensor:
            value = value.clone()
            value[:, silent] = means[silent].view(1, -1, 1, 1).to(value)
            return value

        with torch.no_grad(), Taps(network, edits={place: hold}) as taps:
            for x, y in data.batches(512):
                hits += int((call(network, x).argmax(1) == y).sum())
                total += len(y)
                taps.clear()
    return hits / total


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        network, task = testbed("digits-cnn-deep", seed)
        table = {row["layer"]: row for row in Profile()(network, task.val).table()}
        sums = [
            {name: batch[name].mean((0, 2, 3)) for name in LAYERS}
            for batch in stream(network, task.val, LAYERS, 512)
        ]
        means = {name: torch.stack([s[name] for s in sums]).mean(0) for name in LAYERS}
        accuracy = [kept(network, name, means[name], task.test, seed) for name in LAYERS]
        predictors = {
            "effective rank": [1 - table[name]["effective_rank"] for name in LAYERS],
            "participation ratio": [1 - table[name]["participation"] for name in LAYERS],
            "duplicate units": [table[name]["duplicate_units"] for name in LAYERS],
            "depth": list(range(len(LAYERS))),
        }
        for arm, values in predictors.items():
            known = np.ptp(values) > 0 and np.ptp(accuracy) > 0
            found = spearmanr(values, accuracy).statistic if known else 0.0
            rows.append({"arm": arm, "seed": seed, "rank_correlation": float(found)})
        rows.append({"arm": "accuracy kept", "seed": seed, **dict(zip(LAYERS, accuracy, strict=True))})
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    listed = ", ".join(
        f"{arm} {mean(rows, arm, 'rank_correlation'):+.2f}"
        for arm in ("effective rank", "participation ratio", "duplicate units", "depth")
    )
    kept_by = [[row[name] for name in LAYERS] for row in rows if row["arm"] == "accuracy kept"]
    values = list(column(rows, "effective rank", "rank_correlation").values())
    return Measured(
        f"rank correlation with the accuracy kept: {listed}.",
        {
            "rank correlation of effective rank": estimate(values),
            **differences(rows, "effective rank", ("depth",), ("rank_correlation",)),
        },
        bed={"accuracy kept, widest difference between layers": float(np.mean([np.ptp(k) for k in kept_by]))},
        notes=(
            "Rank says over how many directions a layer's variance spreads, not what the layers behind it make of "
            "them; position tells more: what an early layer loses, everything behind it lacks. "
            "Nothing was retrained after "
            "the removal, so this is about damage, not about what pruning and fine-tuning reach."
        ),
    )
