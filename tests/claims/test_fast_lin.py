"""The baseline of the claim `crown`: Fast-Lin on one hidden layer, against its formula."""

from __future__ import annotations

import torch
from torch import nn

from netwright.claims.verify.crown import fast_lin
from netwright.core.contracts import Box
from netwright.verify.parts.bounds import read


@torch.no_grad()
def test_one_hidden_layer_by_hand():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))
    x, label, radius = torch.randn(5, 6), torch.tensor([0, 1, 0, 1, 0]), 0.2
    found = fast_lin(read(net, x, torch.float64), Box(x - radius, x + radius, label))
    (w1, b1), (w2, b2) = ((layer.weight.double(), layer.bias.double()) for layer in (net[0], net[2]))
    for i in range(5):
        low, high = (x - radius).double()[i], (x + radius).double()[i]
        centre, half = (low + high) / 2, (high - low) / 2
        z, spread = w1 @ centre + b1, w1.abs() @ half
        lower, upper = z - spread, z + spread
        slope = upper.clamp(min=0) / (upper.clamp(min=0) - lower.clamp(max=0))
        row = (w2[0] - w2[1]) * (1 if label[i] == 0 else -1)
        offset = (b2[0] - b2[1]) * (1 if label[i] == 0 else -1)
        # below a relu slope * z, above it slope * (z - lower) where it is open
        back = row * slope
        lines = back @ b1 + (back @ w1) @ centre - (back @ w1).abs() @ half
        lines = lines - (back * lower.clamp(max=0))[row < 0].sum() + offset
        ends = row.clamp(min=0) @ lower.clamp(min=0) + row.clamp(max=0) @ upper.clamp(min=0) + offset
        torch.testing.assert_close(found[i], torch.maximum(lines, ends), rtol=1e-9, atol=1e-9)
        assert bool((slope > 0).any() and (slope < 1).any())
