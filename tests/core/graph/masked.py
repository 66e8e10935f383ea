"""A pruned network against the same network under a mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netwright.core.graph import trace
from netwright.core.graph.groups import dependencies
from netwright.core.graph.prune import mask, prune


def held_to_its_mask(net: nn.Module, x: Tensor) -> dict[str, int]:
    """Sizes of the groups by name, after: all kept changes nothing; every cut gives what the mask gives."""
    found = dependencies(trace(net, x))
    sizes = {group.name: group.size for group in found.groups}
    whole = prune(net, x, {name: range(size) for name, size in sizes.items()}, found)
    torch.testing.assert_close(whole(x), net(x), rtol=1e-12, atol=1e-12)
    cuts = [{name: range(1, size, 2)} for name, size in sizes.items()]
    for keep in [*cuts, {name: kept for cut in cuts for name, kept in cut.items()}]:
        small = prune(net, x, keep, found)
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
        for given in (x, torch.randn_like(x)):
            torch.testing.assert_close(small(given), mask(net, keep, found)(given), rtol=1e-12, atol=1e-12)
    return sizes
