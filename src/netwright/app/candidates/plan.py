"""What `improve` tries: the catalogue's methods, at strengths that follow from what was asked.

In rounds. The first tries every method once or twice. Those after it spend their time on the families that came
nearest, at the strength that the measured latencies (or sizes) so far call for. A short budget has one of them, with
two trials; a long one halves the trials from round to round, so that each has twice the time of those before.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from netwright.app.candidates.control import control_trial
from netwright.core import catalogue
from netwright.core.budget import Budget, Target
from netwright.core.errors import BadInput
from netwright.core.study.study import Trial

LONG = (
    600.0  # seconds from which halving is worth it: its trials are longer than a short budget's second round
)
LEAST_SECONDS = 5.0  # a trial with less time cannot train anything
REPORT_SECONDS = 4.0  # for the last timing, the report and its pictures
GRID = 0.02  # strengths are rounded, so that a repeated plan names the same trials

# passes that a method may make where it has a field for them: the clock ends it earlier, its schedule squeezed to fit
PASSES = 40

# methods that take a strength: the share of multiply-accumulates (or weights) to be removed
STRENGTH = "ratio"


@dataclasses.dataclass(frozen=True)
class Round:
    """share: of the whole command's time. most: trials; 0 for one per method and more."""

    share: float
    most: int = 0


def rounds(seconds: float | None) -> tuple[Round, ...]:
    """What is left of the shares is for timing."""
    if seconds is None or seconds < LONG:
        return Round(0.55), Round(0.3, 2)
    return Round(0.25), Round(0.2, 4), Round(0.2, 2), Round(0.2, 1)


def ending(overhead: float) -> float:
    """Seconds to be kept for what comes after the trials: the winner is exported twice and evaluated on test data.
    overhead: what a trial takes beyond its method, the original's evaluation and export."""
    return 2 * overhead + REPORT_SECONDS


def first_round(
    target: Target,
    methods: Sequence[str] | None,
    budget: Budget,
    seed: int,
    overhead: float = 0.0,
    images: bool = False,
) -> list[Trial]:
    """One trial per method; those that take a strength get the one that the target calls for, and the most
    promising of them a stronger one as well. Each may spend the same. Methods that do not train spend next to
    nothing of it: they come first, and the time is divided among the others; a small budget tries fewer of them, in
    their order. One share goes to the control, where that leaves at least two to methods; it comes before them, since
    every gain is held against it. budget: of the whole command. overhead: seconds that a trial takes beyond its method.
    images: what the network is given; unless the budget is short, methods may then have a second form of themselves
    (the catalogue's `also`).
    """
    rows = methods_for(methods)
    ratio = rounded(asked_ratio(target))
    stronger = rounded(1 - (1 - ratio) * 0.6)
    wanted = [(row, {STRENGTH: ratio} if takes_strength(row) else {}) for row in rows]
    strongest = next((row for row in rows if takes_strength(row)), None)
    if strongest is not None and stronger > ratio:  # both end at the same strongest
        wanted.append((strongest, {STRENGTH: stronger}))
    if images and (budget.seconds is None or budget.seconds >= LONG / 2):
        wanted += [(row, {**row.also, **settings}) for row, settings in list(wanted) if row.also]
    training = [pair for pair in wanted if pair[0].trains]
    seconds, controlled = budget.seconds, bool(training)
    if seconds is not None:
        seconds = rounds(seconds)[0].share * max(0.0, seconds - ending(overhead))
        room = max(1, int(seconds / (LEAST_SECONDS + overhead)))
        controlled = controlled and room > 2
        training = training[: room - controlled]
        each_one = seconds / max(1, len(training) + controlled) - overhead
        seconds = max(LEAST_SECONDS, round(each_one, 1))
    each = Budget(seconds=seconds, target=target)
    untrained = [pair for pair in wanted if not pair[0].trains]
    control = [control_trial(each, seed)] if controlled else []
    made = lambda pairs: [trial(row, settings, seed, each) for row, settings in pairs]
    return [*made(untrained), *control, *made(training)]


def later_round(
    number: int,
    rows: Sequence[dict[str, Any]],
    original: dict[str, Any],
    target: Target,
    metric: str,
    budget: Budget,
    seed: int,
    overhead: float = 0.0,
) -> list[Trial]:
    """Longer trials, of the families that promise most at the strength that should just meet the target.

    number: of the round, from 1; it has a seed of its own. A family's promise is its metric at that strength, on the
    line from what it is without any strength to what was measured. Families within a point of the best one have a
    trial each, as many as the round has; what it has more are stronger ones of the same."""
    able = [r for r in rows if r["status"] == "done" and STRENGTH in r["settings"] and r.get("faster")]
    if not able or budget.seconds is None:
        return []
    this = rounds(budget.seconds)[number]
    seconds = this.share * max(0.0, budget.seconds - ending(overhead)) / this.most - overhead
    each = Budget(seconds=max(LEAST_SECONDS, round(seconds, 1)), target=target)
    found = []
    for slug, form in sorted({_family(r) for r in able}):
        row = catalogue.method(slug)
        mine = [r for r in able if _family(r) == (slug, form)]
        start = next(
            (r for r in rows if r["slug"] == row.at_zero and r.get("faster")), {**original, "faster": 1.0}
        )
        near, strong = (needed_ratio(mine, start, original, target, aim) for aim in (1.1, 1.25))
        found.append((promise(mine, start, metric, near), row, json.loads(form), near, strong))
    found.sort(key=lambda f: f[0], reverse=True)
    close = [family for family in found if family[0] > found[0][0] - 0.01]
    chosen = [(row, form, near) for _, row, form, near, _ in close]
    chosen += [
        (row, form, strong) for _, row, form, near, strong in close if rounded(strong) != rounded(near)
    ]
    return [
        trial(row, {**form, STRENGTH: rounded(ratio)}, seed + number, each)
        for row, form, ratio in chosen[: this.most]
    ]


def _family(row: dict[str, Any]) -> tuple[str, str]:
    """The method, and its settings but for the strength and the passes that it may make, as text."""
    form = {k: v for k, v in row["settings"].items() if k not in (STRENGTH, "epochs")}
    return row["slug"], json.dumps(form, sort_keys=True)


def promise(rows: Sequence[dict[str, Any]], start: dict[str, Any], metric: str, ratio: float) -> float:
    """The metric to expect at a strength: along the line from none to the best measured one."""
    return max(start[metric] - (start[metric] - r[metric]) * ratio / r["settings"][STRENGTH] for r in rows)


def asked_ratio(target: Target) -> float:
    """The share to remove so that what remains is the asked fraction, with a margin: latency falls more slowly
    than multiply-accumulates do."""
    factor = max(target.faster or 1.0, min(target.smaller or 1.0, 20.0))
    return 1 - 0.8 / factor if factor > 1 else 0.3


def needed_ratio(
    rows: Sequence[dict[str, Any]],
    start: dict[str, Any],
    original: dict[str, Any],
    target: Target,
    aim: float = 1.1,
) -> float:
    """Strength at which a family should meet the target: its measured latency (or size) factors are followed
    along a straight line in logarithms from `start`, what it is without any, aimed at `aim` times what was asked."""
    needs = []
    for asked, factor in (
        (target.faster, lambda r: r["faster"]),
        (target.smaller, lambda r: original["bytes"] / r["bytes"]),
    ):
        if asked is None:
            continue
        kept = [0.0] + [math.log(1 - r["settings"][STRENGTH]) for r in rows]
        gain = [math.log(max(factor(r), 1e-3)) for r in (start, *rows)]
        slope, at_zero = np.polyfit(kept, gain, 1)
        needs.append(1 - math.exp((math.log(aim * asked) - at_zero) / min(slope, -0.1)))
    return float(np.clip(max(needs, default=0.3), 0.1, 0.95))


def methods_for(slugs: Sequence[str] | None) -> list[catalogue.Method]:
    """The named methods, or those that improve tries by default; BadInput for one of another goal."""
    if not slugs:
        return default_methods()
    rows = [catalogue.method(slug) for slug in slugs]
    for row in rows:
        if row.goal != "compress":
            raise BadInput(
                f"'{row.slug}' is a method of the goal {row.goal}; improve tries methods of compress"
            )
    return rows


def default_methods() -> list[catalogue.Method]:
    """Those with a place in the order in which `improve` tries methods."""
    return sorted((row for row in catalogue.of_goal("compress") if row.improve), key=lambda row: row.improve)


def untried(tried: Sequence[str]) -> list[dict[str, str]]:
    """Methods of compress that were not tried, with the reason."""
    return [
        {"slug": row.slug, "why": "not among the methods that improve tries by default; name it with --methods"
         if not row.improve else "no time was left for it (a larger --budget), or other methods were asked for"}
        for row in catalogue.of_goal("compress") if row.slug not in tried and row.contract == "Transform"
    ]  # fmt: skip


def takes_strength(row: catalogue.Method) -> bool:
    return has_field(row, STRENGTH)


def has_field(row: catalogue.Method, name: str) -> bool:
    return name in {f.name for f in dataclasses.fields(row.load())}


def trial(row: catalogue.Method, settings: dict[str, Any], seed: int, budget: Budget) -> Trial:
    if budget.seconds is not None and has_field(row, "epochs"):
        settings = {**settings, "epochs": PASSES}
    words = f" {100 * settings[STRENGTH]:.0f} %" if STRENGTH in settings else ""
    words += "".join(f", {name} {settings[name]}" for name in row.also if name in settings)
    return Trial(row.slug, settings, seed, budget, f"{row.name.lower()}{words}")


def rounded(ratio: float) -> float:
    return round(min(max(round(ratio / GRID) * GRID, 0.1), 0.96), 4)
