"""What Gowal et al. say of training on interval bounds, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.verified import RADIUS, SETTING, subject
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean
from netwright.verify.parts.certify import Certify, certified_accuracy

EXAMPLES = 200
OTHERS = ("plain", "pgd")
ABOVE = tuple(Part(f"proved: interval less {kind}", "above") for kind in OTHERS)
CLAIM = Claim(
    slug="interval-bounds",
    paper=(
        "intervals are loose, but a network trained on them can be proved by them: verified error on MNIST falls from "
        "3.67 % to 2.23 % at radius 0.1 and from 19.32 % to 8.05 % at 0.3"
    ),
    setting=f"{SETTING}; the first {EXAMPLES} test images at radius {RADIUS}; each network proved by intervals and by "
    "CROWN, attacked by PGD (20 steps)",
    rule=Rule(
        holds=(*ABOVE, Part("largest share that intervals certify of the others", "at most", 0.05)),
        mixed=(ABOVE,),
        bed=(Part("accuracy of interval", "at least", 0.8),),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        for kind in ("plain", "pgd", "interval"):
            network, task = subject(kind, seed)
            row: dict[str, Any] = {"arm": kind, "seed": seed}
            for bound in ("interval", "crown"):
                found = certified_accuracy(
                    network.to(scale.device), task, RADIUS, Certify(bound), examples=EXAMPLES
                )
                row |= {"clean": found.clean, "attacked": found.attacked, bound: found.certified}
            row["best"] = max(row["interval"], row["crown"])
            # for the comparison each baseline gets its better verifier, the interval-trained network intervals
            row["proved"] = row["interval"] if kind == "interval" else row["best"]
            rows.append(row)
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    listed = "; ".join(
        f"{kind}: clean {mean(rows, kind, 'clean'):.1%}, attacked {mean(rows, kind, 'attacked'):.1%}, certified "
        f"{mean(rows, kind, 'interval'):.1%} by intervals, {mean(rows, kind, 'crown'):.1%} by CROWN"
        for kind in ("plain", "pgd", "interval")
    )
    return Measured(
        f"At radius {RADIUS}, by training: {listed}.",
        {
            **differences(rows, "interval", OTHERS, ("proved",)),
            "largest share that intervals certify of the others": max(
                mean(rows, k, "interval") for k in OTHERS
            ),
        },
        {"accuracy of interval": mean(rows, "interval", "clean")},
        "A tenth of the paper's scale in images and far fewer epochs: clean and certified accuracy are both lower.",
    )
