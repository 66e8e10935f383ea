"""The arms of the claim `pgd` may use 81 passes an image, a gradient counting one more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netwright.claims.verify.pgd import ARMS
from netwright.core.contracts import Box


@pytest.mark.parametrize(("arm", "passes"), [
    ("pgd 40", 81), ("pgd 40, margin", 81), ("pgd 7 x 5", 77), ("fgsm x 27", 81), ("noise x 81", 81),
])  # fmt: skip
def test_every_arm_uses_the_passes_that_the_claim_names(arm: str, passes: int) -> None:
    class Counted(nn.Module):
        forwards = gradients = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Counted.forwards += 1
            logits = torch.cat([x.sum(1, keepdim=True) + 100, -x.sum(1, keepdim=True)], 1)  # never broken
            if logits.requires_grad:
                logits.register_hook(lambda grad: setattr(Counted, "gradients", Counted.gradients + 1))
            return logits

    x = torch.zeros(1, 3)
    ARMS[arm].attack(Counted(), Box(x - 0.1, x + 0.1, torch.tensor([0])))
    asked_anyway = 3  # whether the box fits the network, the centre's margin, and the answer's
    assert Counted.forwards + Counted.gradients == passes + asked_anyway
