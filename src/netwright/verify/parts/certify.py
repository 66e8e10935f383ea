"""Certified robustness: bounds that prove, an attack that refutes, and accuracies at a radius.

On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models (arXiv 1810.12715);
Efficient Neural Network Robustness Certification with General Activation Functions (CROWN, arXiv 1811.00866).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from netwright.core import progress
from netwright.core.budget import Budget, Meter, within
from netwright.core.contracts import Answer, Box, Verdict, Verifier
from netwright.core.errors import BadInput, NotApplicable, OutOfTime
from netwright.core.network import device_of, evaluating
from netwright.core.task import Task
from netwright.verify.parts.attack import Attack
from netwright.verify.parts.bounds import (
    Interval,
    Program,
    crown_bounds,
    interval_bounds,
    lowest,
    read,
    tightest,
)
from netwright.verify.parts.boxes import box_around, check

ATTACK = 0.4  # share of the time that may go by before bounds are computed
Method = Literal["crown", "crown-ibp", "interval"]


@dataclass(frozen=True)
class Certify:
    """Prove, per example, that the label stays on top in its box; look for a counterexample first.

    bound: 'crown' carries linear bounds back to the input and tightens intermediate bounds in the same way;
    'crown-ibp' takes intervals for the intermediate bounds (faster, looser); 'interval' propagates intervals, with
    the last affine layers merged into the margins. pgd_steps, restarts: the attack (0 steps: only the box's
    centre is tried). batch_size: examples bounded together. seed: of the attack's random starts.

    Serves networks of one input and (B, classes) outputs made of the operators in bounds/operators.py; another
    operator raises UnsupportedOperator, which names it. Only examples that withstand the attack are bounded; the
    margin of the others is -inf. What a budget leaves untouched is 'unknown': the attack may use ATTACK of it, then
    intervals are propagated for all, since they are soon done and what they prove is proved; bounds that are not
    done in time are given up, and of a network with slow bounds fewer are computed together.

    Bounds hold for the network as real arithmetic computes it with the given weights: they are computed in float64
    and widened by 16 units in the last place of what they sum up, not by directed rounding, and 'holds' needs a
    margin above 1e-6 (1 + margin). Counterexamples are forward passes of the network itself, in its own precision.
    """

    bound: Method = "crown"
    pgd_steps: int = 20
    restarts: int = 1
    batch_size: int = 16
    seed: int = 0

    def __call__(self, network: nn.Module, property: Box, budget: Budget) -> Verdict:
        if self.bound not in ("crown", "crown-ibp", "interval"):
            raise BadInput(f"no bound named '{self.bound}'; use crown, crown-ibp or interval")
        meter, device = budget.start(), device_of(network)
        box = Box(*(t.to(device) for t in (property.lower, property.upper, property.label)))
        with evaluating(network), torch.no_grad():
            check(network, box)
            program = read(network, box.lower[:1], torch.float64)
        attack = Attack(self.pgd_steps, self.restarts, seed=self.seed)
        worst, seen = attack.attack(network, box, meter.left().part(ATTACK))
        margin = torch.full((len(box.label),), -torch.inf, dtype=torch.float64)
        standing = torch.nonzero(seen >= 0)[:, 0]
        quick: tuple[Method, ...] = (
            () if self.bound == "interval" or meter.seconds == math.inf else ("interval",)
        )
        with suppress(OutOfTime), within(meter.left().seconds):
            for bound in (*quick, self.bound):
                for some in self._batches(standing, meter):
                    part = Box(box.lower[some], box.upper[some], box.label[some])
                    found = margin_bound(program, part, bound).min(1).values.cpu()
                    margin[some] = torch.maximum(margin[some], found)
        answers: list[Answer] = [
            "violated" if s < 0 else "holds" if sure else "unknown"
            for s, sure in zip(seen.tolist(), proves(margin).tolist(), strict=True)
        ]
        return Verdict(answers, margin, worst)

    def _batches(self, standing: Tensor, meter: Meter) -> Iterator[Tensor]:
        """Where the time is limited one example comes first: it tells how many may be bounded together, so that the
        next look at the clock comes soon."""
        first, size = 0, self.batch_size if meter.seconds == math.inf else 1
        while first < len(standing) and not meter.exhausted:
            began = meter.elapsed
            yield standing[first : first + size]
            each = (meter.elapsed - began) / size
            first += size
            progress.step(min(first, len(standing)), len(standing), "bounding")
            if meter.seconds != math.inf:
                soon = (meter.seconds - meter.elapsed) / 4
                size = max(1, min(self.batch_size, int(soon / max(each, 1e-9))))


def margin_bound(program: Program, box: Box, bound: Method = "crown") -> Tensor:
    """Lower bounds (B, C-1) of output[label] - output[k] over each box, k running over the other classes."""
    interval = Interval(box.lower, box.upper)
    with torch.no_grad():
        rows = margin_rows(box.label, program.output.size, program.input.dtype)
        if bound == "interval":
            return lowest(program, program.output, rows, interval_bounds(program, interval), ends="interval")
        inner = "crown" if bound == "crown" else "interval"
        return tightest(program, rows, crown_bounds(program, interval, inner))


def proves(margin: Tensor) -> Tensor:
    """Whether lower bounds of margins, computed in float64, are far enough above 0 for rounding not to matter."""
    return margin > 1e-6 * (1 + margin.abs())


def margin_rows(label: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """(B,) -> (B, C-1, C): row k of an example is e_label - e_k, over the classes that are not its label."""
    eye = torch.eye(classes, dtype=dtype, device=label.device)
    rows = eye[label][:, None] - eye[None]
    others = eye[label] == 0
    return rows[others].reshape(len(label), classes - 1, classes)


_AT_ONCE = 16  # examples classified between two looks at the clock


@dataclass(frozen=True)
class Robustness:
    """Fractions of `examples`: right on the clean input; right under attack; proved right within the radius (None: by
    a verifier that proves nothing).

    certified <= true robust accuracy <= attacked.
    """

    radius: float
    clean: float
    attacked: float
    certified: float | None
    examples: int
    verdict: Verdict


def certified_accuracy(
    network: nn.Module,
    task: Task,
    radius: float,
    verifier: Verifier | None = None,
    budget: Budget | None = None,
    examples: int = 200,
    role: Literal["train", "val", "test"] = "test",
    clip: tuple[float, float] | Literal["auto"] | None = "auto",
) -> Robustness:
    """Accuracies of a classifier on the first `examples` of a split within an L-infinity radius.

    radius: in units of the scaled image (8/255: eight grey levels) where the task normalises, else of the input.
    clip: the valid range in the same units; 'auto' is (0, 1) for images that a task normalises, else none.
    verifier: default Certify(). budget: of all of it; where classifying the examples takes a fifth of it, those that
    are done by then are the examples. One that is misclassified already is neither attacked nor certified.
    """
    if task.kind != "classification":
        raise NotApplicable(f"certified accuracy is for classification; task '{task.name}' is {task.kind}")
    if clip == "auto":
        clip = (0.0, 1.0) if task.meaning == "image" and task.normalise is not None else None
    meter = (budget or Budget()).start()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    left = examples
    with evaluating(network), torch.no_grad():
        for inputs, labels in getattr(task, role).batches(min(examples, _AT_ONCE)):
            if isinstance(inputs, tuple):
                raise NotApplicable("certified accuracy is for networks of one input")
            inputs, labels = inputs[:left], labels[:left]
            parts.append((inputs, labels, network(inputs.to(device_of(network))).cpu()))
            left -= len(labels)
            if not left or meter.elapsed > ATTACK / 2 * meter.seconds:
                break  # where classifying is slow, fewer examples, so that there is time for them
    inputs, labels, outputs = (torch.cat(some) for some in zip(*parts, strict=True))
    right = torch.nonzero(outputs.argmax(1) == labels)[:, 0]
    clean = len(right) / len(labels)
    if len(right) == 0:
        raise NotApplicable(
            "the network classifies none of the examples rightly; there is nothing to certify"
        )
    box = box_around(inputs[right], labels[right], radius, clip, task.normalise)
    verifier = verifier or Certify()
    verdict = verifier(network, box, meter.left())
    attacked = (len(right) - verdict.count("violated")) / len(labels)
    certified = verdict.count("holds") / len(labels) if getattr(verifier, "proves", True) else None
    return Robustness(radius, clean, attacked, certified, len(labels), verdict)
