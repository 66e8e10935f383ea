"""What Gowal et al. say of training on interval bounds, measured here."""

from __future__ import annotations

from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.statistics import difference, mean
from netwright.claims.verify.bed import RADIUS, SETTING, subject
from netwright.verify.certify import Certify, certified_accuracy

EXAMPLES = 200
CLAIM = Claim(
    slug="interval-bounds",
    paper=(
        "intervals are loose, but a network trained on them can be proved by them: verified error on MNIST falls from "
        "3.67 % to 2.23 % at radius 0.1 and from 19.32 % to 8.05 % at 0.3"
    ),
    setting=f"{SETTING}; the first {EXAMPLES} test images at radius {RADIUS}; each network proved by intervals and by "
    "CROWN, attacked by PGD (20 steps)",
    holds_if=(
        "the interval-trained network's accuracy certified by intervals is above the best of both verifiers on the "
        "plain and on the PGD-trained network (95 % intervals above 0), and intervals certify under 5 % of the latter "
        "two; mixed if only the first part holds"
    ),
)


def measure(scale: Scale) -> Measured:
    rows = []
    for seed in scale.seeds:
        for kind in ("plain", "pgd", "interval"):
            network, task = subject(kind, seed)
            row: dict[str, object] = {"arm": kind, "seed": seed}
            for bound in ("interval", "crown"):
                found = certified_accuracy(
                    network.to(scale.device), task, RADIUS, Certify(bound), examples=EXAMPLES
                )
                row |= {"clean": found.clean, "attacked": found.attacked, bound: found.certified}
            row["best"] = max(row["interval"], row["crown"])
            # for the comparison each baseline gets its better verifier, the interval-trained network intervals
            row["proved"] = row["interval"] if kind == "interval" else row["best"]
            rows.append(row)
    gains = {kind: difference(rows, "interval", kind, "proved") for kind in ("plain", "pgd")}
    wins = all(g["interval"][0] > 0 for g in gains.values())
    loose = max(mean(rows, kind, "interval") for kind in gains) < 0.05
    listed = "; ".join(
        f"{kind}: clean {mean(rows, kind, 'clean'):.1%}, attacked {mean(rows, kind, 'attacked'):.1%}, certified "
        f"{mean(rows, kind, 'interval'):.1%} by intervals, {mean(rows, kind, 'crown'):.1%} by CROWN"
        for kind in ("plain", "pgd", "interval")
    )
    return Measured(
        rows,
        "holds" if wins and loose else "mixed" if wins else "does not hold here",
        f"At radius {RADIUS}, by training: {listed}.",
        {f"certified, interval-trained less {kind}": g for kind, g in gains.items()},
        "A tenth of the paper's scale in images and far fewer epochs: clean and certified accuracy are both lower.",
    )
