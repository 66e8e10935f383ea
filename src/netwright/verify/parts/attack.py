"""Projected gradient descent over boxes: what a proof has to stand against (arXiv 1706.06083)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core import progress
from netwright.core.budget import Budget, Meter
from netwright.core.contracts import Box
from netwright.core.errors import BadInput
from netwright.core.network import device_of, evaluating
from netwright.verify.parts.boxes import check, margins

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "margin": lambda outputs, labels: -margins(outputs, labels),
    "cross-entropy": lambda outputs, labels: F.cross_entropy(outputs, labels, reduction="none"),
}


@dataclass(frozen=True)
class Attack:
    """Walk each box for an input whose top class is not the label.

    steps of size `step` along the sign of the loss's gradient, projected onto the box, from `restarts` starts: the
    first at the box's centre, the others uniform in it (start='random': all of them uniform). `step` is in half
    widths of the box, element by element, so that a box cut to the valid range is walked at its own scale; None
    takes 2.5 / steps, enough to cross it. loss: 'margin' (best other output minus the label's), 'cross-entropy' or
    a function (outputs (B, C), labels (B,)) -> (B,) to be raised. Every point on the way is looked at; an example
    that is broken is not attacked further.
    """

    steps: int = 40
    restarts: int = 1
    step: float | None = None
    start: Literal["centre", "random"] = "centre"
    loss: str | Loss = "margin"
    batch_size: int = 128
    seed: int = 0

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
        self, how: Attack, network: nn.Module, box: Box, meter: Meter, generator: torch.Generator
    ) -> None:
        if isinstance(how.loss, str) and how.loss not in LOSSES:
            raise BadInput(f"no attack loss named '{how.loss}'; use {' or '.join(LOSSES)}")
        self.how, self.network, self.box, self.meter, self.generator = how, network, box, meter, generator
        self.loss: Loss = LOSSES[how.loss] if isinstance(how.loss, str) else how.loss
        self.half = (box.upper - box.lower) / 2
        self.worst = box.lower + self.half
        with torch.no_grad():
            self.margin = margins(network(self.worst), box.label)

    def go(self) -> Tensor:
        for restart in range(self.how.restarts):
            standing = torch.nonzero(self.margin >= 0)[:, 0]
            if len(standing) == 0 or self.meter.exhausted:
                break
            self._descend(standing, centre=restart == 0 and self.how.start == "centre")
        return self.worst

    def _descend(self, standing: Tensor, centre: bool) -> None:
        """One start for the examples with these indices; those that break drop out."""
        lower, upper, half = self.box.lower[standing], self.box.upper[standing], self.half[standing]
        noise = torch.rand(lower.shape, generator=self.generator).to(lower)
        x = lower + half if centre else (lower + 2 * half * noise).clamp(lower, upper)
        size = self.how.step if self.how.step is not None else 2.5 / max(1, self.how.steps)
        for step in range(self.how.steps + 1):
            gradient = self._look(x, standing, last=step == self.how.steps)
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
