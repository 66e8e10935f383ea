"""Whether few weights want a hotter training than many, and whether the landscape tells; measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.quartered import quartered
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import estimate, told
from netwright.compress.three_regime import Regimes
from netwright.compress.three_regime.regimes import right
from netwright.core.fit import Fit
from netwright.core.network import seeded
from netwright.models import build

EPOCHS = (2.0, 5.0, 15.0, 45.0)
DENSITIES = (0.02, 0.05, 0.1, 0.3, 0.8)
RECIPE = Fit(lr=4e-3, warmup=1.0)
RETRAIN = Fit(epochs=8, lr=2e-3)
HOTTER = "places by which the best temperature at the lowest density is hotter"
ADVICE = "cells whose advice leads to no higher error"
CLAIM = Claim(
    slug="three-regime",
    paper="whether a hotter training of the dense network helps or harms changes with the density it is pruned to",
    setting=(
        "CNN of widths 16-32-64 with batch norm, 3,000 Fashion-MNIST images at 14x14; dense networks trained for 2, 5, "
        "15 and 45 epochs (AdamW 4e-3, cosine; fewer are hotter), pruned at once to 2, 5, 10, 30 and 80 % of each "
        "convolution's weights, trained again for 8 epochs from two seeds; lines of 11 points on 1,500 validation "
        "images, errors on 1,500 test images; training longest is the baseline"
    ),
    rule=Rule(
        holds=(Part(HOTTER, "above"), Part(ADVICE, "at least", 0.8)),
        mixed=((Part(HOTTER, "above"),), (Part(ADVICE, "at least", 0.8),)),
        bed=(
            Part("error that temperature decides at the lowest density", "at least", 0.01),
            Part("error that pruning to the lowest density adds", "at least", 0.02),
            Part("share of cells in regime I or II-A", "at least", 0.1),
        ),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows = []
    for seed in scale.seeds:
        task = quartered(3_000, 1_500, seed)
        with seeded(seed):
            network = build("cnn", task.input_shape, task.outputs, widths=(16, 32, 64)).to(scale.device)
        method = Regimes(
            "epochs", EPOCHS, DENSITIES, RECIPE, RETRAIN, seeds=(2 * seed, 2 * seed + 1), seed=seed
        )
        rows += [
            {"arm": f"{row['temperature']:g} epochs", "seed": seed, **row}
            for row in method(network, task).table()
        ]
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    seeds = sorted({row["seed"] for row in rows})
    of = lambda seed, density: sorted(
        (r for r in rows if r["seed"] == seed and r["density"] == density), key=lambda r: r["hotness"]
    )
    errors = lambda seed, density: [r["error"] for r in of(seed, density)]
    best = lambda seed, density: min(
        range(len(EPOCHS)), key=lambda i: errors(seed, density)[i]
    )  # 0 is the coldest
    least, most = min(DENSITIES), max(DENSITIES)
    steps = estimate([best(s, least) - best(s, most) for s in seeds], "paired t")
    advice = [right([r for r in rows if r["seed"] == s]) for s in seeds]
    over = {
        f"error of training longest less that of the best, {100 * d:g} % of the weights": estimate(
            [errors(s, d)[0] - min(errors(s, d)) for s in seeds], "paired t"
        )
        for d in DENSITIES
    }
    count = {r: sum(row["regime"] == r for row in rows) for r in ("I", "II-A", "II-B")}
    mean_error = lambda density: sum(min(errors(s, density)) for s in seeds) / len(seeds)
    spread = sum(max(errors(s, least)) - min(errors(s, least)) for s in seeds) / len(seeds)
    lmc = {
        f"lmc, {e:g} epochs, {100 * d:g} % of the weights": sum(
            r["lmc"] for r in rows if r["temperature"] == e and r["density"] == d
        ) / len(seeds)
        for e in EPOCHS for d in DENSITIES
    }  # fmt: skip
    return Measured(
        summary=(
            f"the best temperature at 2 % of the weights is {told(steps, 1, 1)} places hotter than at 80 %, of four; "
            f"advice leads to no higher error in {100 * sum(advice) / len(advice):.0f} % of the cells; of {len(rows)} "
            f"cells {count['I']} are in regime I, {count['II-A']} in II-A, {count['II-B']} in II-B"
        ),
        figures={HOTTER: steps, ADVICE: sum(advice) / len(advice), **over, **lmc},
        bed={
            "error that temperature decides at the lowest density": spread,
            "error that pruning to the lowest density adds": mean_error(least) - mean_error(most),
            "share of cells in regime I or II-A": (count["I"] + count["II-A"]) / len(rows),
        },
        notes=(
            "Where two retrained networks never part, the landscape has nothing to tell, whatever it could. Looked at: "
            f"outputs of a pair are alike (CKA of {min(r['cka'] for r in rows):.3f} and more), lines between them are "
            "as flat as ends differ; the line and CKA are held against closed forms in the tests. Eight epochs of "
            "AdamW 2e-3 move a pruned network less than the paper's 160 of SGD 0.1, which is the next bed to try."
        ),
    )
