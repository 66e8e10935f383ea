"""What Madry et al. say of many small steps against one large one, measured here at equal passes."""

from __future__ import annotations

from typing import Any

from netwright.claims.beds.verified import SETTING, boxes, subject
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean
from netwright.verify.pgd import PGD

EXAMPLES = 500
RADII = {"plain": 0.05, "pgd": 0.15}
WEAKER = ("fgsm x 27", "noise x 81")
CLAIM = Claim(
    slug="pgd",
    paper=(
        "PGD is the strongest first-order attack: on the adversarially trained MNIST network accuracy is 95.6 % under "
        "FGSM, 93.2 % under PGD of 40 steps, 89.3 % under 100 steps and 20 restarts (figures recalled, not re-read)"
    ),
    setting=f"{SETTING} (here the plain CNN at radius {RADII['plain']} and the PGD-trained one at {RADII['pgd']}); "
    f"{EXAMPLES} test images; at most 81 passes an image, a gradient counting one more: PGD 40 steps from the centre "
    "(81), 5 steps from the centre and 6 random points (77), FGSM from the centre and 26 random points (81), 81 random "
    "points",
    rule=Rule(
        holds=tuple(
            Part(f"broken: {kind}: pgd 40 less {kind}: {other}", "above")
            for kind in RADII
            for other in WEAKER
        ),
        bed=tuple(Part(f"broken by the weakest, {kind}", "at most", 0.95) for kind in RADII),
    ),
)
ARMS = {
    "pgd 40": PGD(steps=40, loss="cross-entropy"),
    "pgd 40, margin": PGD(steps=40, loss="margin"),
    "pgd 7 x 5": PGD(steps=5, restarts=7, loss="cross-entropy"),
    "fgsm x 27": PGD(steps=1, step=1.0, restarts=27, loss="cross-entropy"),
    "noise x 81": PGD(steps=0, restarts=81, start="random"),
}


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        for kind, radius in RADII.items():
            network, task = subject(kind, seed)
            box = boxes(task, EXAMPLES, network, radius)
            for arm, attack in ARMS.items():
                _, margin = attack.attack(network.to(scale.device), box)
                broken = (margin < 0).double().mean().item()
                rows.append(
                    {"arm": f"{kind}: {arm}", "seed": seed, "broken": broken, "margin": margin.mean().item()}
                )
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures: dict[str, Any] = {}
    for kind in RADII:
        figures |= differences(rows, f"{kind}: pgd 40", [f"{kind}: {other}" for other in WEAKER], ("broken",))
    listed = "; ".join(
        f"{kind}: " + ", ".join(f"{arm} {mean(rows, f'{kind}: {arm}', 'broken'):.1%}" for arm in ARMS)
        for kind in RADII
    )
    weakest = lambda kind: min(mean(rows, f"{kind}: {arm}", "broken") for arm in ARMS)
    return Measured(
        f"Images broken: {listed}.",
        figures,
        bed={f"broken by the weakest, {kind}": weakest(kind) for kind in RADII},
    )
