"""First and second moments of a layer's units, streamed, and what they say."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Count, mean, zeros and second moments (C, C) of rows (n, C), about the first batch's mean.

    Of more than `widest` units so many are kept for the second moments, drawn by `seed`.
    """

    def __init__(self, width: int, widest: int, seed: int = 0) -> None:
        self.width = width
        self.kept: Tensor | None = None
        if width > widest:
            order = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
            self.kept = order[:widest].sort().values
        self.count = 0
        self.shift: Tensor | None = None

    def see(self, rows: Tensor) -> None:
        """rows: (n, C) of one batch."""
        if self.kept is not None:
            rows = rows[:, self.kept.to(rows.device)]
        if self.shift is None:
            self.shift = rows.double().mean(0).to(rows.dtype)
            self.sum = torch.zeros_like(self.shift, dtype=torch.float64)
            self.zeros = torch.zeros_like(self.sum)
            self.square = self.sum.new_zeros(rows.shape[1], rows.shape[1])
        self.zeros += (rows == 0).sum(0)
        moved = (rows - self.shift).float() if rows.dtype != torch.float64 else rows - self.shift
        self.sum += moved.sum(0, dtype=torch.float64)
        self.square += (moved.T @ moved).double()
        self.count += rows.shape[0]

    @property
    def mean(self) -> Tensor:
        """(C,)"""
        assert self.shift is not None
        return self.shift.double() + self.sum / self.count

    @property
    def covariance(self) -> Tensor:
        """(C, C), divided by the count. Units that never change have exactly 0."""
        offset = self.sum / self.count
        covariance = self.square / self.count - torch.outer(offset, offset)
        scale = self.square.diagonal() / self.count + self.mean**2
        dead = covariance.diagonal() <= 1e-12 * scale
        covariance[dead] = 0
        covariance[:, dead] = 0
        return covariance

    def figures(self, duplicate: float) -> dict[str, float]:
        """Mean, spread and redundancy; shares are of the units looked at."""
        covariance, mean = self.covariance, self.mean
        variance = covariance.diagonal()
        units = len(mean)
        follows = (correlation(covariance).abs().triu(1) >= duplicate).any(0)
        spectrum = eigenvalues(covariance)
        return {
            "units": self.width,
            "mean": mean.mean().item(),
            "std": (variance.mean() + mean.var(correction=0)).sqrt().item(),
            "zeros": (self.zeros.sum() / (self.count * units)).item(),
            "dead": (variance == 0).double().mean().item(),
            "participation": participation(spectrum) / units,
            "effective_rank": effective_rank(spectrum) / units,
            "duplicate_units": follows.double().mean().item(),
        }


def correlation(covariance: Tensor) -> Tensor:
    """Pearson correlations; 0 for what never changes."""
    scale = covariance.diagonal().sqrt()
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    return covariance / torch.outer(safe, safe)


def eigenvalues(covariance: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(covariance).clamp_min(0)


def participation(spectrum: Tensor) -> float:
    """(sum)^2 / sum of squares: how many directions share the variance; 0 without any."""
    square = spectrum.pow(2).sum()
    return (spectrum.sum() ** 2 / square).item() if square > 0 else 0.0


def effective_rank(spectrum: Tensor) -> float:
    """exp(entropy of the normalised spectrum); 0 without any."""
    total = spectrum.sum()
    if total <= 0:
        return 0.0
    p = spectrum / total
    return torch.special.entr(p).sum().exp().item()
