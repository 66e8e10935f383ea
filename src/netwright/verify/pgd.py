"""Projected gradient descent: the attack that a proof has to stand against.

Towards Deep Learning Models Resistant to Adversarial Attacks (Madry et al., arXiv 1706.06083).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from netwright.core.budget import Budget
from netwright.core.contracts import Answer, Box, Verdict
from netwright.verify.parts.attack import Attack


@dataclass(frozen=True)
class PGD(Attack):
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
