"""The blocks of a network: modules that read a stream, add to it what one feed-forward gives, and hand it on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.errors import NotApplicable
from netwright.core.graph.feeds import Feed, feeds
from netwright.core.graph.ir import Graph
from netwright.core.network import Inputs, call, device_of, evaluating, move, without_fast_path


@dataclass(frozen=True)
class Block:
    """name: of the module; '' for the network itself. feed: its feed-forward. width: units of that."""

    name: str
    feed: Feed
    width: int


def blocks(network: nn.Module, graph: Graph, example: Inputs) -> list[Block]:
    """In the order in which they run. graph: of the network, at level 'structure'.

    A block is the outermost module around a feed-forward that holds no other one, runs once, and gives what it was
    given in another state: its first input and output have one shape. A feed-forward in no such module is in no block.
    """
    added = [feed for feed in feeds(network, graph) if feed.adds is not None]
    around = {feed.down: _around(feed, added) for feed in added}
    streams = _streams(network, example, {name for names in around.values() for name in names})
    found = []
    for feed in added:
        width = network.get_submodule(feed.down).in_features
        size = network.get_submodule(feed.down).out_features
        fitting = [name for name in around[feed.down] if streams.get(name, ())[-1:] == (size,)]
        if fitting:
            found.append(Block(fitting[0], feed, width))  # type: ignore[arg-type]
    if not found:
        raise NotApplicable(
            "this network has no block with a feed-forward, down(activation(up(x))) or down(activation(gate(x)) * "
            "up(x)) of plain linear layers, that is added to what the block was given"
        )
    return found


def _around(feed: Feed, every: Iterable[Feed]) -> list[str]:
    """Modules with all of this feed-forward and its sum in them, and nothing of others; the outermost first."""
    mine = [feed.up, feed.down, feed.adds or "", *([feed.gate] if feed.gate else [])]
    others = [other.down for other in every if other.down != feed.down]
    parts = feed.down.split(".")
    names = [".".join(parts[:i]) for i in range(len(parts))]
    return [
        name
        for name in names
        if all(_within(name, each) for each in mine) and not any(_within(name, each) for each in others)
    ]


def _within(name: str, other: str) -> bool:
    return not name or other == name or other.startswith(f"{name}.")


def _streams(network: nn.Module, example: Inputs, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shape of what passes these modules, of those alone that run once and give what has the shape of what they got."""
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def hook(name: str) -> Any:
        def ran(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given, gave = given_and_gave(args, kwargs, output)
            alike = given is not None and gave is not None and given.shape == gave.shape
            shapes.setdefault(name, []).append(tuple(given.shape) if alike else ())  # type: ignore[union-attr]

        return ran

    handles = [
        network.get_submodule(name).register_forward_hook(hook(name), with_kwargs=True) for name in names
    ]
    try:
        with evaluating(network), torch.no_grad(), without_fast_path():
            call(network, move(example, device_of(network)))
    finally:
        for handle in handles:
            handle.remove()
    return {name: each[0] for name, each in shapes.items() if len(each) == 1 and each[0]}


def given_and_gave(args: Any, kwargs: Any, output: Any) -> tuple[Tensor | None, Tensor | None]:
    """The first tensor of floats that a module was given, and the first that it gives."""
    values = (*args, *kwargs.values())
    given = next((v for v in values if isinstance(v, Tensor) and v.is_floating_point()), None)
    gave = output[0] if isinstance(output, tuple) and output else output
    return given, gave if isinstance(gave, Tensor) else None
