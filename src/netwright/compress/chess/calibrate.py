"""The two calibration passes: how large each channel's up projection is, then where the thresholds lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from netwright.compress.chess.layers import ACTIVATIONS
from netwright.core import progress
from netwright.core.budget import Meter
from netwright.core.graph.feeds import Feed
from netwright.core.network import batch_size, call, device_of, evaluating, move
from netwright.core.split import Split
from netwright.core.taps import Taps, watching

_BATCH = 32
_HELD = 1 << 22  # scores kept of a place; of more, a random part


class Quantile(Protocol):
    """The value that a share of what was added lies below. Added: (B, ...), a batch of examples."""

    def add(self, values: Tensor) -> None: ...

    def value(self) -> Tensor: ...


class Pooled:
    """Of all values together; of a random part of each example where they are too many to be held."""

    def __init__(self, share: float, examples: int, seed: int) -> None:
        self.share, self.per_example = share, max(1, _HELD // examples)
        self.held: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(seed)

    def add(self, values: Tensor) -> None:
        allowed, flat = self.per_example * len(values), values.flatten()
        if len(flat) > allowed:
            picks = torch.randint(len(flat), (allowed,), generator=self.generator)
            flat = flat[picks.to(flat.device)]
        self.held.append(flat.float())

    def value(self) -> Tensor:
        return _below(torch.cat(self.held)[None], self.share)[0]


class Averaged:
    """Of each example by itself, then the mean: as the authors' code has it."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.held: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        self.held.append(_below(values.flatten(1).float(), self.share))

    def value(self) -> Tensor:
        return torch.cat(self.held).mean()


def _below(rows: Tensor, share: float) -> Tensor:
    """Of each row (R, n) the value (R,) that floor(share * n) others are no larger than."""
    n = rows.shape[1]
    return rows.kthvalue(1 + min(int(share * n), n - 1), dim=1).values


@dataclass(frozen=True)
class Thresholds:
    """channels: by the name of a feed-forward's gate (H,). inputs: by the name of a linear layer ()."""

    channels: dict[str, Tensor]
    inputs: dict[str, Tensor]


def thresholds(
    network: nn.Module,
    feeds: Sequence[Feed],
    lines: Sequence[str],
    split: Split,
    meter: Meter,
    quantile: Callable[[], Quantile],
    by_channel: bool,
) -> Thresholds:
    """Read off a network as it is. lines: linear layers whose inputs get one threshold each. quantile: makes an empty
    one. by_channel: score a channel by |g| times the mean of its |u|; else by |g| alone, one threshold for all."""
    means = _means(network, feeds, split, meter) if by_channel else {}
    scores = {feed.gate: quantile() for feed in feeds}
    inputs = {name: quantile() for name in lines}
    of_gate = {feed.gate: feed for feed in feeds}

    def observe(name: str, output: Tensor) -> None:
        feed = of_gate[name]
        g = ACTIVATIONS[feed.activation][0](_half(output, feed, feed.gate_first)).abs()
        scores[name].add(g * means[name] if by_channel else g)

    with watching(network, list(scores), observe), Taps(network, lines, inputs=True) as taps:
        for _ in _passed(network, split, meter, meter.seconds, "thresholds"):
            for name in lines:
                inputs[name].add(taps[name].abs())
            taps.clear()
    return Thresholds(
        {name: _threshold(score.value(), means.get(name)) for name, score in scores.items()},
        {name: held.value() for name, held in inputs.items()},
    )


def _means(network: nn.Module, feeds: Sequence[Feed], split: Split, meter: Meter) -> dict[str, Tensor]:
    """Mean |u| of every channel (H,), by the name of the gate."""
    of_up = {feed.up: feed for feed in feeds}
    sums: dict[str, Tensor] = {}
    rows = dict.fromkeys(of_up, 0)

    def observe(name: str, output: Tensor) -> None:
        u = _half(output, of_up[name], not of_up[name].gate_first).flatten(0, -2).abs()
        sums[name] = sums.get(name, 0.0) + u.sum(0, dtype=torch.float64 if u.is_cpu else torch.float32)
        rows[name] += len(u)

    with watching(network, list(of_up), observe):
        for _ in _passed(network, split, meter, meter.seconds / 2, "sizes of channels"):
            pass
    return {feed.gate: (sums[feed.up] / rows[feed.up]).float() for feed in feeds}


def _half(output: Tensor, feed: Feed, first: bool) -> Tensor:
    """The gate's or the up projection's part (..., H) of what its layer gives."""
    if feed.gate != feed.up:
        return output
    return output.chunk(2, -1)[0 if first else 1]


def _threshold(tau: Tensor, mean: Tensor | None) -> Tensor:
    """t = tau / mean, of |g|. A channel that never gives anything is never active, and nor is one with g = 0."""
    if mean is None:
        return tau
    return torch.where(mean > 0, tau / mean, torch.inf)


def _passed(network: nn.Module, split: Split, meter: Meter, end: float, note: str) -> Iterator[None]:
    """Pass a split through the network, a batch at a time; one at least, until `end` on the meter's clock."""
    device, done = device_of(network), 0
    with evaluating(network), torch.no_grad():
        for inputs, _ in split.batches(_BATCH):
            call(network, move(inputs, device))
            done += batch_size(inputs)
            meter.spend(samples=batch_size(inputs))
            progress.step(done, len(split), note)
            yield
            if meter.elapsed >= end or done >= len(split):
                return
