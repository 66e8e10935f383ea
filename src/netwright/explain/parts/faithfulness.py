"""Is an explanation true to the network? Deletion and insertion curves, and the weight-randomisation check."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor, nn

from netwright.core.budget import time_left
from netwright.core.contracts import Explainer
from netwright.core.network import Inputs, as_tuple, call, clone, evaluating
from netwright.explain.parts.cam import on_device, picture_index, scores_of

IGNORES = 0.5


def deletion_insertion(
    network: nn.Module, inputs: Inputs, attribution: Tensor, target: Tensor, steps: int = 16
) -> dict[str, Tensor]:
    """Areas under the deletion and the insertion curve, each (B,) in [0, 1].

    RISE: Randomized Input Sampling for Explanation of Black-box Models (Petsiuk et al., arXiv 1806.07421).
    Deletion: the target's probability while pixels are set to 0 (the mean colour of a normalised picture), the
    most important first: low is good. Insertion: while they are put back into a blurred picture: high is good.
    attribution: (B, H, W). `steps` equal steps, 2 * (steps + 1) forward passes. Probabilities are the softmax
    over the outputs. Empty for networks without a picture among the inputs or with one output only, and
    where the time set around it (core/budget.py) is over before the curves are whole.
    """
    tensors = as_tuple(on_device(network, inputs))
    index = picture_index(tensors)
    if index is None or attribution.shape[1:] != tensors[index].shape[2:]:
        return {}
    picture = tensors[index]
    order = attribution.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    rank = rank.view(-1, 1, *attribution.shape[1:]).to(picture.device)
    area = {"deletion": torch.zeros_like(picture), "insertion": blurred(picture)}
    curves: dict[str, list[Tensor]] = {name: [] for name in area}
    with evaluating(network), torch.no_grad():
        for i in range(steps + 1):
            if time_left() <= 0:
                return {}
            taken = rank < round(i / steps * order.shape[1])
            for name, background in area.items():
                seen = ~taken if name == "deletion" else taken
                changed = torch.where(seen, picture, background)
                outputs = scores_of(call(network, (*tensors[:index], changed, *tensors[index + 1 :])))
                if outputs.shape[1] < 2:
                    return {}
                curves[name].append(outputs.softmax(1).gather(1, target[:, None])[:, 0])
    return {name: torch.trapezoid(torch.stack(c, 1), dx=1 / steps, dim=1).cpu() for name, c in curves.items()}


def blurred(picture: Tensor, size: int = 11, sigma: float = 5.0) -> Tensor:
    """The picture (B, C, H, W) under a Gaussian of `size` pixels (RISE's), its border repeated."""
    at = torch.arange(size, dtype=picture.dtype, device=picture.device) - size // 2
    row = torch.exp(-(at**2) / (2 * sigma**2))
    row = row / row.sum()
    channels = picture.shape[1]
    padded = F.pad(picture, (size // 2,) * 4, mode="replicate")
    wide = F.conv2d(padded, row.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(wide, row.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """A copy whose parameters keep their values but not their places: nothing that was learned is left."""
    generator = torch.Generator().manual_seed(seed)
    copy = clone(network)
    with torch.no_grad():
        for parameter in copy.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copy


def similarity_after_randomising(
    explainer: Explainer, network: nn.Module, inputs: Inputs, target: Tensor | None = None, seed: int = 0
) -> Tensor:
    """|rank correlation| (B,) of the maps before and after all weights were shuffled, for the same classes.

    Sanity Checks for Saliency Maps (Adebayo et al., arXiv 1810.03292), all layers at once. The paper draws new
    weights from the initialiser, which a network from a file does not tell; we shuffle each tensor's entries.
    A map that is constant correlates with nothing: 0.
    """
    before = explainer(network, inputs, target)
    after = explainer(randomised(network, seed), inputs, before.target)
    pairs = zip(
        before.attribution.flatten(1).cpu().numpy(), after.attribution.flatten(1).cpu().numpy(), strict=True
    )
    return torch.tensor([abs(_rank_correlation(a, b)) for a, b in pairs])


def ignores_weights(
    explainer: Explainer, network: nn.Module, inputs: Inputs, target: Tensor | None = None, seed: int = 0
) -> bool:
    """Whether the maps stay much the same (mean |rank correlation| over 0.5) when all that was learned is gone."""
    return bool(similarity_after_randomising(explainer, network, inputs, target, seed).mean() > IGNORES)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    ranks = np.stack([rankdata(a), rankdata(b)])
    ranks -= ranks.mean(1, keepdims=True)
    size = np.sqrt((ranks**2).sum(1)).prod()
    return float((ranks[0] * ranks[1]).sum() / size) if size > 0 else 0.0
