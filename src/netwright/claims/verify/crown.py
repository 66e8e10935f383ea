"""What Zhang et al. say of CROWN's adaptive lines against Fast-Lin's parallel ones, measured here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from netwright.claims.beds.verified import SETTING, boxes, subject
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import difference, mean
from netwright.core.contracts import Box
from netwright.core.task import Task
from netwright.verify.parts.bounds import Interval, Program, crown_bounds, read, tightest
from netwright.verify.parts.bounds.backward import lower_slopes
from netwright.verify.parts.certify import margin_bound, margin_rows, proves
from netwright.verify.pgd import PGD

EXAMPLES, HALVINGS, WIDEST = 20, 8, 0.256
KINDS = ("mlp", "plain", "pgd")
GAINS = tuple(
    Part(f"{kind}: crown less {other}", "above") for kind in KINDS for other in ("fast-lin", "interval")
)
SOUND = Part("images certified beyond a broken radius", "at most")
CLAIM = Claim(
    slug="crown",
    paper=(
        "on ReLU networks CROWN notably improves the certified lower bounds of the minimum distortion over Fast-Lin at "
        "comparable cost (MNIST MLPs, L-infinity: 3 to 30 % larger in the tables; figures recalled, not re-read)"
    ),
    setting=f"{SETTING} (here: the MLP, the plain CNN and the PGD-trained CNN); the largest certified radius of "
    f"{EXAMPLES} test images by {HALVINGS} halvings of {WIDEST}; Fast-Lin in the same engine by the "
    "same rule for intermediate bounds, with both lines of a relu parallel; "
    "PGD (20 steps, 2 starts) gives the radius that cannot be proved",
    rule=Rule(
        holds=(*GAINS, SOUND),
        mixed=tuple((part, SOUND) for part in GAINS),
        bed=tuple(Part(f"radius that PGD breaks, {kind}", "at most", WIDEST - 1e-3) for kind in KINDS),
    ),
)
Proof = Callable[[Box], Tensor]


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        for kind in KINDS:
            network, task = subject(kind, seed)
            network = network.to(scale.device)
            program = read(network, task.example()[0].to(scale.device), torch.float64)
            attack = PGD(steps=20, restarts=2, seed=seed)
            arms: dict[str, Proof] = {
                "interval": lambda box, p=program: proves(margin_bound(p, box, "interval").min(1).values),
                "crown-ibp": lambda box, p=program: proves(margin_bound(p, box, "crown-ibp").min(1).values),
                "fast-lin": lambda box, p=program: proves(fast_lin(p, box)),
                "crown": lambda box, p=program: proves(margin_bound(p, box, "crown").min(1).values),
                "pgd": lambda box, n=network, a=attack: a.attack(n, box)[1].to(box.lower.device) >= 0,
            }
            found = {arm: radii(proof, task, network) for arm, proof in arms.items()}
            for arm, (radius, seconds) in found.items():
                rows.append(
                    {
                        "arm": f"{kind}: {arm}",
                        "seed": seed,
                        "radius": radius.mean().item(),
                        "seconds": seconds,
                        "beyond": int((radius > found["pgd"][0] + 1e-9).sum()),
                    }
                )
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    gains = {
        f"{kind}: crown less {other}": difference(rows, f"{kind}: crown", f"{kind}: {other}", "radius")
        for kind in KINDS
        for other in ("fast-lin", "interval")
    }
    at = lambda kind, arm: mean(rows, f"{kind}: {arm}", "radius")
    listed = "; ".join(
        f"{kind} {at(kind, 'crown'):.4f} (Fast-Lin {at(kind, 'fast-lin'):.4f}, interval {at(kind, 'interval'):.4f}, "
        f"broken from {at(kind, 'pgd'):.4f})"
        for kind in KINDS
    )
    return Measured(
        f"Mean certified radius by CROWN: {listed}.",
        {
            **gains,
            **{f"{kind}: over fast-lin": at(kind, "crown") / at(kind, "fast-lin") - 1 for kind in KINDS},
            "images certified beyond a broken radius": sum(row["beyond"] for row in rows),
        },
        bed={f"radius that PGD breaks, {kind}": at(kind, "pgd") for kind in KINDS},
    )


def radii(survives: Proof, task: Task, network: nn.Module) -> tuple[Tensor, float]:
    """Per image, the largest radius at which `survives` is true, by bisection, and the seconds that it took.

    All arms halve the same interval, so a radius proved beyond one that was broken comes out as the larger.
    """
    start = time.monotonic()
    at_zero = boxes(task, EXAMPLES, network, 0.0)
    device = next(network.parameters()).device
    low, high = torch.zeros(EXAMPLES), torch.full((EXAMPLES,), WIDEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        box = widened(at_zero, middle, task)
        good = survives(Box(*(t.to(device) for t in (box.lower, box.upper, box.label)))).cpu()
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return low, time.monotonic() - start


def widened(box: Box, radius: Tensor, task: Task) -> Box:
    """Each image's own radius, cut to [0, 1]."""
    assert task.normalise is not None
    std, mean_ = task.normalise.std.item(), task.normalise.mean.item()
    spread = radius[:, None, None, None] / std
    floor, ceiling = (0 - mean_) / std, (1 - mean_) / std
    return Box((box.lower - spread).clamp(min=floor), (box.upper + spread).clamp(max=ceiling), box.label)


def fast_lin(program: Program, box: Box) -> Tensor:
    """Margins (B,) by Fast-Lin (arXiv 1804.09699): the lower line of an open relu is parallel to its chord."""
    parallel = lambda x: x.upper.clamp(min=0) / (x.upper.clamp(min=0) - x.lower.clamp(max=0)).clamp_min(1e-12)
    with torch.no_grad():
        bounds = crown_bounds(program, Interval(box.lower, box.upper), slope_of=parallel)
        rows = margin_rows(box.label, program.output.size, program.input.dtype)
        slopes = lower_slopes(program, bounds, parallel)
        return tightest(program, rows, bounds, slopes).min(1).values
