"""How many units of its feed-forward each block keeps, and which."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from netwright.compress.cfsp.find import Block

# The paper divides sums of angles over 128 x 1,024 tokens by 10,000. Of their mean, the same formula has this factor,
# and means the same with any number of tokens.
GAIN = 128 * 1024 / 10_000


def shares(
    angles: Tensor, widths: Sequence[int], ratio: float, sharpness: float = 1.0, margin: float = 1.0
) -> Tensor:
    """Share of its units that each block keeps (B,), in float64; together 1 - ratio of all units.

    angles (B,): mean angle of each block, in units of pi. Blocks that turn their stream further keep more, by a
    sigmoid; where one would keep more than it has, all differences shrink until none does. margin: by so many times
    more than that takes.
    """
    angles, weights = angles.double(), torch.tensor(widths, dtype=torch.float64)
    scores = torch.sigmoid(sharpness * GAIN * (angles - angles.mean()))
    apart = scores / (scores * weights).sum() * weights.sum() - 1
    room = 1 / (1 - ratio) - 1
    if apart.max() >= room:
        apart = apart * (room / (margin * apart.max().clamp_min(1e-30)))
    return (1 - ratio) * (1 + apart)


def multiple(width: int, round_to: int) -> int:
    """Kept numbers are multiples of this: of `round_to`, where that is no more than a sixteenth of the width; else of
    the largest power of two that is."""
    if 16 * round_to <= width:
        return round_to
    return 1 << (max(1, width // 16).bit_length() - 1)


def counts(kept: Tensor, widths: Sequence[int], round_to: int) -> list[int]:
    """Numbers of units from shares (B,): multiples, one at least, of all blocks together as near to what the shares
    amount to as multiples come. What is over goes to the blocks that rounding down takes most from."""
    wanted = [float(share) * width for share, width in zip(kept, widths, strict=True)]
    steps = [multiple(width, round_to) for width in widths]
    found = [max(step, int(w / step + 1e-9) * step) for w, step in zip(wanted, steps, strict=True)]
    left = sum(wanted) - sum(found)
    for i in sorted(range(len(found)), key=lambda i: -(wanted[i] - found[i]) / steps[i]):
        more = min(steps[i], widths[i] - found[i])
        if wanted[i] > found[i] and left >= more / 2:
            found[i] += more
            left -= more
    return found


def scores(
    network: nn.Module, block: Block, sizes: Tensor, b: float = 1.0, c: float = 1.0, as_released: bool = False
) -> Tensor:
    """How much each unit of a block's feed-forward matters (H,).

    sizes (H,): of the units' activations, in any unit. The weights that read a unit, times its size to the power b,
    and those that make it, (d, H) each, are divided by their sums over all units (as_released: over the unit's own
    weights), added, averaged over d, and multiplied by the size to the power c.
    """
    sizes = sizes.to(network.get_submodule(block.feed.down).weight.device)  # type: ignore[arg-type]
    parts = [weight.detach().abs().float() for weight in matrices(network, block)]
    parts[0] = parts[0] * sizes**b
    axis = 0 if as_released else 1
    together = torch.stack([(p / p.sum(axis, keepdim=True).clamp_min(1e-30)).mean(0) for p in parts]).sum(0)
    return together * sizes**c


def matrices(network: nn.Module, block: Block) -> list[Tensor]:
    """Weights (d, H) of a feed-forward: those that read the units, those that make them, and the gate's."""
    feed = block.feed
    weight = lambda name: network.get_submodule(name).weight
    made = [weight(feed.up)] if feed.gate in (None, feed.up) else [weight(feed.up), weight(feed.gate)]
    if feed.gate == feed.up:
        made = list(made[0].chunk(2))
    return [weight(feed.down), *(each.t() for each in made)]


def best(values: Tensor, count: int) -> Tensor:
    """Indices of the largest, in ascending order."""
    return values.argsort(descending=True, stable=True)[:count].sort().values.cpu()
