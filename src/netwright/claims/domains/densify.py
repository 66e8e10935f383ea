"""What the paper says about denser and denser networks, measured here over path loss and fading."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import arms_of, column, estimate, mean
from netwright.core import progress
from netwright.domains.wireless.densify import Densify, Slope, regime
from netwright.domains.wireless.parts.fading import LogPareto, Pareto, Rayleigh, hill, limit_coverage
from netwright.domains.wireless.parts.path_loss import PathLoss

CLAIM = Claim(
    slug="densify",
    paper=(
        "the tail of path loss and fading decides: a user's performance grows, saturates or vanishes as stations are "
        "added; metrics of the network scale better than those of the user"
    ),
    setting=(
        "three path losses (r^-4 at the station; r^-1.6 there, then r^-4; bounded) by three fading laws (Rayleigh, "
        "Pareto 0.7, log-Pareto 2); disc with 10 to 100,000 stations, 100 users a seed, no noise; "
        "slope of log mean rate over the last two decades, a slope within 0.05 counts as flat; coverage on 1,000 "
        "further users a seed with 10,000 stations"
    ),
    full="1,000 users a seed",
    rule=Rule(
        holds=(
            Part("slopes against the prediction", "at most"),
            Part("coverage off the closed form, most", "at most", 0.03),
            Part("rate per area, least slope", "at least", -0.05),
        ),
        mixed=((Part("slopes against the prediction", "at most", 3),),),
        bed=(Part("laws of which the prediction differs", "at least", 3),),
    ),
)

PATH_LOSSES = {
    "r^-4": PathLoss((4.0,)),
    "r^-1.6, then r^-4": PathLoss((1.6, 4.0), (0.3,)),
    "bounded, then r^-4": PathLoss((4.0,), near=0.1),
}
FADINGS = {"Rayleigh": Rayleigh(), "Pareto 0.7": Pareto(0.7), "log-Pareto 2": LogPareto(2.0)}
DENSITIES = (10.0, 100.0, 1000.0, 10_000.0, 100_000.0)
COVERED = 10_000.0
AREA = 1.0


def row(arm: str, model: Densify, seed: int) -> dict[str, Any]:
    found = model()
    slope = found.rate_slope()
    powers = model.log_powers(100_000, np.random.default_rng(10_000 + seed))
    area, sparse = found.area_efficiency(), found.rates()[0]
    limit = float(limit_coverage(model.tail_index, 1.0)) if 0 < model.tail_index < 1 else None
    # a share of users needs many of them, and is measured apart, at one density
    many = replace(model, densities=(COVERED,), users=10 * model.users, seed=20_000 + seed) if limit else None
    return {
        "arm": arm, "seed": seed, "tail_index": model.tail_index if np.isfinite(model.tail_index) else None,
        "hill": hill(powers, 500)[0], "predicted": model.regime, "slope": slope.value, "low": slope.low,
        "high": slope.high, "area_slope": float(np.polyfit(np.log(DENSITIES[-3:]), np.log(area[-3:]), 1)[0]),
        "coverage": float(many().coverage(1.0)[0]) if many else None, "limit": limit,
        "median_rate_at_10": float(np.median(sparse)), "rate_at_100000": float(found.rate()[-1]),
        # with few stations a user may have one alone, and without noise nothing bounds its rate
        "boundless_at_10": float(np.isinf(sparse).mean()),
    }  # fmt: skip


def measure(scale: Scale) -> list[dict[str, Any]]:
    users = 100 if scale.name == "quick" else 1000
    grid = [(p, f) for p in PATH_LOSSES for f in FADINGS]
    rows: list[dict[str, Any]] = []
    for done, (loss, fading) in enumerate(grid):
        for seed in scale.seeds:
            model = Densify(
                PATH_LOSSES[loss], FADINGS[fading], densities=DENSITIES, radius=np.sqrt(AREA / np.pi), users=users,
                seed=seed,
            )  # fmt: skip
            rows.append(row(f"{loss} / {fading}", model, seed))
        progress.step(done + 1, len(grid), f"{loss} / {fading}")
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures: dict[str, Any] = {}
    wrong, gaps = [], []
    for arm in arms_of(rows):
        first = next(r for r in rows if r["arm"] == arm)
        slope = estimate(list(column(rows, arm, "slope").values()))
        found = Slope(slope["mean"], slope["low"], slope["high"]).regime
        index = np.inf if first["tail_index"] is None else first["tail_index"]
        figures[arm] = {
            **slope, "tail index": first["tail_index"], "predicted": regime(index), "measured": found,
            "area slope": mean(rows, arm, "area_slope"),
            "coverage": None if first["limit"] is None else mean(rows, arm, "coverage"),
            "coverage limit": first["limit"],
        }  # fmt: skip
        if found != figures[arm]["predicted"]:
            wrong.append(arm)
        if first["limit"] is not None:
            gaps.append(abs(mean(rows, arm, "coverage") - first["limit"]))
    laws = list(figures.values())
    vanishing = [f["area slope"] for f in laws if f["predicted"] == "vanishes"]
    summary = (
        f"{len(laws) - len(wrong)} of {len(laws)} slopes have the predicted sign; coverage where the closed form "
        f"applies is off by at most {100 * max(gaps):.1f} points; where users' rates vanish, the rate per area still "
        f"has log-log slopes of {min(vanishing):.2f} to {max(vanishing):.2f}"
    )
    notes = (
        "The rate per area is density times rate, so that its slope is the user's plus one by definition; what is "
        "measured is whether it stays at or above zero where users lose. A first "
        "run took coverage from the 100 users a seed of the slopes, whose standard error is 2.2 points over five "
        "seeds: it was off by up to 3.2 points and came out as mixed; the limit of 3 points has not been changed since."
        + (f" Against the prediction: {', '.join(wrong)}." if wrong else "")
    )
    figures |= {
        "slopes against the prediction": len(wrong),
        "coverage off the closed form, most": max(gaps),
        "rate per area, least slope": min(f["area slope"] for f in laws),
    }
    bed = {"laws of which the prediction differs": len({f["predicted"] for f in laws})}
    return Measured(summary, figures, bed, notes)
