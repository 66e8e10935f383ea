"""Projected gradient descent: the attack that a proof has to stand against.

Towards Deep Learning Models Resistant to Adversarial Attacks (Madry et al., arXiv 1706.06083).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core import progress
from netwright.core.budget import Budget, Meter
from netwright.core.contracts import Answer, Box, Verdict
from netwright.core.errors import BadInput
from netwright.core.network import device_of, evaluating
from netwright.verify.boxes import check, margins

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "margin": lambda outputs, labels: -margins(outputs, labels),
    "cross-entropy": lambda outputs, labels: F.cross_entropy(outputs, labels, reduction="none"),
}


@dataclass(frozen=True)
class PGD:
    """Search each box for an input whose top class is not the label.

    steps of size `step` along the sign of the loss's gradient, projected onto the box, from `restarts` starts: the
    first at the box's centre, the others uniform in it (start='random': all of them uniform). `step` is in half
    widths of the box, element by element, so that a box cut to the valid range is walked at its own scale; None
    takes 2.5 / steps, enough to cross it. loss: 'margin' (best other output minus the label's), 'cross-entropy' or
    a function (outputs (B, C), labels (B,)) -> (B,) to be raised. Every point on the way is looked at; an example
    that is broken is not attacked further.

    The answer is 'violated' with an input inside the box whose margin is negative in a separate forward pass, or
    'unknown': an attack proves nothing, so the margin's lower bound is -inf. (A box of one point is looked at in
    full, and answered.)
    Differs from the paper: the margin loss is the default, and one start is the centre.
    """

    steps: int = 40
    restarts: int = 1
    step: float | None = None
    start: Literal["centre", "random"] = "centre"
    loss: str | Loss = "margin"
    batch_size: int = 128
    seed: int = 0

    proves: ClassVar[bool] = False

    def __call__(self, network: nn.Module, property: Box, budget: Budget) -> Verdict:
        found, low = self.attack(network, property, budget)
        point = (property.lower == property.upper).flatten(1).all(1).cpu()
        margin = torch.where(point & low.isfinite(), low, torch.full_like(low, -torch.inf))
        answers: list[Answer] = [
            "violated" if seen < 0 else "holds" if proved > 0 else "unknown"
            for seen, proved in zip(low.tolist(), margin.tolist(), strict=True)
        ]
        return Verdict(answers, margin, found)

    def attack(self, network: nn.Module, box: Box, budget: Budget | None = None) -> tuple[Tensor, Tensor]:
        """The worst inputs found (B, ...) and their margins (B,) in a forward pass of their own, on the CPU.

        A budget that ends early leaves the rest of the examples at the centre of their boxes, those that were not
        even looked at there with a margin of inf. Of a slow network fewer are attacked together.
        """
        if self.steps < 0 or self.restarts < 1:
            raise BadInput(
                f"an attack needs steps >= 0 and restarts >= 1, not {self.steps} and {self.restarts}"
            )
        meter, device, found, low = (budget or Budget()).start(), device_of(network), [], []
        generator = torch.Generator().manual_seed(self.seed)
        with evaluating(network):
            began = meter.elapsed
            check(network, box)
            size = self._at_once(meter, meter.elapsed - began)
            for first in range(0, len(box.label), size):
                some = slice(first, first + size)
                part = Box(*(t[some].to(device) for t in (box.lower, box.upper, box.label)))
                if meter.exhausted:
                    found.append((part.lower + (part.upper - part.lower) / 2).cpu())
                    low.append(torch.full((len(part.label),), torch.inf))
                    continue
                worst = _Search(self, network, part, meter, generator).go()
                with torch.no_grad():
                    low.append(margins(network(worst), part.label).cpu())
                found.append(worst.cpu())
                progress.step(first + len(worst), len(box.label), "attacking")
        return torch.cat(found), torch.cat(low)

    def _at_once(self, meter: Meter, once: float) -> int:
        """Examples in a batch, so that a step, which is a pass forward and one back, takes an eighth of the time at
        most. once: seconds of a pass of one example."""
        if meter.seconds == math.inf:
            return self.batch_size
        return max(1, min(self.batch_size, int(meter.seconds / 8 / max(3 * once, 1e-9))))


class _Search:
    """The attack on one batch: the worst point of each example so far, and its margin."""

    def __init__(
        self, pgd: PGD, network: nn.Module, box: Box, meter: Meter, generator: torch.Generator
    ) -> None:
        if isinstance(pgd.loss, str) and pgd.loss not in LOSSES:
            raise BadInput(f"no attack loss named '{pgd.loss}'; use {' or '.join(LOSSES)}")
        self.pgd, self.network, self.box, self.meter, self.generator = pgd, network, box, meter, generator
        self.loss: Loss = LOSSES[pgd.loss] if isinstance(pgd.loss, str) else pgd.loss
        self.half = (box.upper - box.lower) / 2
        self.worst = box.lower + self.half
        with torch.no_grad():
            self.margin = margins(network(self.worst), box.label)

    def go(self) -> Tensor:
        for restart in range(self.pgd.restarts):
            standing = torch.nonzero(self.margin >= 0)[:, 0]
            if len(standing) == 0 or self.meter.exhausted:
                break
            self._descend(standing, centre=restart == 0 and self.pgd.start == "centre")
        return self.worst

    def _descend(self, standing: Tensor, centre: bool) -> None:
        """One start for the examples with these indices; those that break drop out."""
        lower, upper, half = self.box.lower[standing], self.box.upper[standing], self.half[standing]
        noise = torch.rand(lower.shape, generator=self.generator).to(lower)
        x = lower + half if centre else (lower + 2 * half * noise).clamp(lower, upper)
        size = self.pgd.step if self.pgd.step is not None else 2.5 / max(1, self.pgd.steps)
        for step in range(self.pgd.steps + 1):
            gradient = self._look(x, standing, last=step == self.pgd.steps)
            if gradient is None or self.meter.exhausted:
                return
            x = (x + size * half * gradient.sign()).clamp(lower, upper)
            going = self.margin[standing] >= 0
            if not bool(going.all()):
                standing, x, half = standing[going], x[going], half[going]
                lower, upper = lower[going], upper[going]
            if len(standing) == 0:
                return

    def _look(self, x: Tensor, standing: Tensor, last: bool) -> Tensor | None:
        """Keep x where it is the worst so far; the gradient of the loss there, unless this is the last look."""
        x = x.detach().requires_grad_(not last)
        labels = self.box.label[standing]
        with torch.set_grad_enabled(not last):
            outputs = self.network(x)
        margin = margins(outputs.detach(), labels)
        worse = margin < self.margin[standing]
        self.margin[standing[worse]] = margin[worse]
        self.worst[standing[worse]] = x.detach()[worse]
        if last:
            return None
        return torch.autograd.grad(self.loss(outputs, labels).sum(), x)[0]
