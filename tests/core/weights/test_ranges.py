"""Ranges against their definitions."""

import pytest
import torch

from netwright.core.weights.grids import Uniform
from netwright.core.weights.ranges import Entropy


def entropy_by_hand(row: torch.Tensor, bins: int, factors: torch.Tensor, bits: int) -> float:
    """The factor of least divergence, as the calibration is told in words, one bin at a time."""
    low, high = row.min().item(), row.max().item()
    width = (high - low) / bins
    counts = [0.0] * bins
    for value in row.tolist():
        counts[min(bins - 1, int((value - low) / width))] += 1
    centres = [low + (i + 0.5) * width for i in range(bins)]
    grid, found = Uniform(bits), []
    for factor in factors.tolist():
        scale = max(abs(low * factor), abs(high * factor)) / grid.highest
        inside = [i for i in range(bins) if low * factor <= centres[i] <= high * factor]
        p = [counts[i] if i in inside else 0.0 for i in range(bins)]
        p[inside[0]] += sum(counts[: inside[0]])
        p[inside[-1]] += sum(counts[inside[-1] + 1 :])
        levels = [max(-grid.highest, min(grid.highest, round(c / scale))) for c in centres]
        q = [0.0] * bins
        for level in set(levels):
            full = [i for i in inside if levels[i] == level and counts[i]]
            for i in full:
                q[i] = sum(counts[j] for j in full) / len(full)
        p, q = torch.tensor(p).double() / sum(p), torch.tensor(q).double() / sum(q)
        found.append((p[p > 0] * (p[p > 0] / q[p > 0].clamp_min(1e-9)).log()).sum().item())
    return factors[torch.tensor(found).argmin()].item()


@pytest.mark.parametrize("bits", [3, 4])
def test_entropy_takes_the_range_of_least_divergence(bits) -> None:
    rows = torch.randn(2, 400, generator=torch.Generator().manual_seed(bits)).double()
    rows[0, 0] = 9.0  # an outlier
    grid, bins, steps = Uniform(bits), 64, 20
    found = {}

    def keep(rows, rounding):
        found["range"] = Entropy(bins, steps)(rows, rounding)
        return found["range"]

    grid.quantise(rows, keep)
    factors = torch.cat([torch.ones(1), torch.linspace(1, 0.2, steps + 1)[1:]])
    for i, row in enumerate(rows):
        wanted = entropy_by_hand(row, bins, factors, bits) * row.max().item()
        assert found["range"][1][i].item() == pytest.approx(wanted, rel=1e-6)
    assert found["range"][1][0] < 0.8 * rows[0].max()
