"""The one calibration pass: how far each block turns its stream, and how large the units of its feed-forward are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.compress.cfsp.find import Block, given_and_gave
from netwright.core import progress
from netwright.core.budget import Meter
from netwright.core.network import batch_size, call, device_of, evaluating, move, without_fast_path
from netwright.core.split import Split

_BATCH = 8


@dataclass(frozen=True)
class Measured:
    """angles (B,): by block, the mean over tokens of the angle between what it is given and what it gives, in units of
    pi. sizes: by block (H,), the root of the mean square over tokens of each unit of its feed-forward, as the layer
    behind them is given it."""

    angles: Tensor
    sizes: tuple[Tensor, ...]


def measure(network: nn.Module, blocks: Sequence[Block], split: Split, meter: Meter) -> Measured:
    """One pass of a split through the network, a batch at a time; of a part where the meter's time is over. Holds
    nothing but sums."""
    passes = [_Sums() for _ in blocks]
    handles = []
    for block, sums in zip(blocks, passes, strict=True):
        module, down = network.get_submodule(block.name), network.get_submodule(block.feed.down)
        handles.append(module.register_forward_hook(sums.turned(), with_kwargs=True))
        handles.append(down.register_forward_pre_hook(sums.seen()))
    device, done = device_of(network), 0
    try:
        with evaluating(network), torch.no_grad(), without_fast_path():
            for inputs, _ in split.batches(_BATCH):
                call(network, move(inputs, device))
                done += batch_size(inputs)
                meter.spend(samples=batch_size(inputs))
                progress.step(done, len(split), "angles of blocks, sizes of units")
                if meter.elapsed >= meter.seconds:
                    break
    finally:
        for handle in handles:
            handle.remove()
    return Measured(
        torch.stack([(each.angle / each.tokens).cpu() for each in passes]),
        tuple((each.square / each.rows).sqrt().float().cpu() for each in passes),
    )


class _Sums:
    """Over the tokens of all batches so far."""

    def __init__(self) -> None:
        self.angle, self.tokens = torch.zeros((), dtype=torch.float64), 0
        self.square, self.rows = torch.zeros((), dtype=torch.float64), 0

    def turned(self) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given, gave = given_and_gave(args, kwargs, output)
            assert given is not None
            assert gave is not None
            found = angle(given, gave)
            self.angle = self.angle + found.double().sum().cpu()
            self.tokens += found.numel()

        return hook

    def seen(self) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any) -> None:
            x = args[0].flatten(0, -2).float()
            self.square = self.square + x.square().sum(0).double().cpu()
            self.rows += len(x)

        return hook


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Between vectors (..., d), in units of pi, (...). By half angles: the arc cosine of a number near 1 would round
    what barely turns to nothing."""
    a, b = F.normalize(a.float(), dim=-1), F.normalize(b.float(), dim=-1)
    return 2 / math.pi * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))
