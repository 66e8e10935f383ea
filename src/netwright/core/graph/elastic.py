"""One network, many sizes: each is a prefix of its units (channels, heads, features) and of its stacks' blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput, NotApplicable, UnknownName
from netwright.core.graph.groups import Dependencies, dependencies
from netwright.core.graph.stacks import stacks, without
from netwright.core.graph.trace import trace
from netwright.core.graph.view import View, view
from netwright.core.network import Inputs, as_tuple, device_of, move


@dataclass(frozen=True)
class Prefix:
    """How many leading units of each group, and how many leading blocks of each stack: (name, number) pairs.

    What is not named stays whole; `Elastic.prefix` makes it so that equal sizes are equal.
    """

    units: tuple[tuple[str, int], ...] = ()
    blocks: tuple[tuple[str, int], ...] = ()

    def within(self, other: Prefix) -> bool:
        """Whether it keeps nothing that the other leaves out: the order in which sizes are nested."""
        pairs = ((self.units, other.units), (self.blocks, other.blocks))
        return all(
            name in dict(mine) and dict(mine)[name] <= number
            for mine, theirs in pairs
            for name, number in theirs
        )


class Elastic:
    """A network that runs at any prefix of its units and blocks, on its own parameters.

    network: stays the owner of the parameters; train them through `at`. example: inputs, batch first.
    groups: as `dependencies` finds them, those of two units or more; stacks: as `stacks` does.
    NotApplicable where the network has neither.
    """

    def __init__(self, network: nn.Module, example: Inputs) -> None:
        self.network = network
        self.example = as_tuple(move(as_tuple(example), device_of(network)))
        self.known = dependencies(trace(network, self.example))
        self.groups = [group for group in self.known.groups if group.size > 1]
        self.stacks = stacks(network, self.example)
        if not self.groups and not self.stacks:
            reason = next(
                iter(self.known.blocked.values()), "it has no layer between its input and its output"
            )
            raise NotApplicable(
                f"no part of this network is a prefix of it: {reason}, and it has no stack of blocks"
            )
        self._networks: dict[tuple[tuple[str, int], ...], tuple[nn.Module, Dependencies]] = {
            (): (network, self.known)
        }
        self._views: dict[Prefix, View] = {}

    def prefix(
        self, units: Mapping[str, int] | None = None, blocks: Mapping[str, int] | None = None
    ) -> Prefix:
        """The size with so many leading units (group name -> number) and blocks (stack name and first block ->
        number, as in `depths`); BadInput where there are no such."""
        return Prefix(
            _counted("group", units or {}, {group.name: group.size for group in self.groups}),
            _counted("stack", blocks or {}, self.depths),
        )

    @property
    def depths(self) -> dict[str, int]:
        """Blocks of each stack, by the name of the first."""
        return {stack.blocks[0]: len(stack.blocks) for stack in self.stacks}

    def share(self, width: float = 1.0, depth: float = 1.0, round_to: int = 1) -> Prefix:
        """The size that keeps these shares of every group and of every stack, one unit and one block at least.

        round_to: numbers of units are multiples of it in groups of at least twice as many.
        """
        if not (0 < width <= 1 and 0 < depth <= 1):
            raise BadInput(f"a size keeps shares above 0 and up to 1, not {width:g} and {depth:g}")
        return self.prefix(
            {group.name: _rounded(width * group.size, group.size, round_to) for group in self.groups},
            {name: _rounded(depth * size, size, 1) for name, size in self.depths.items()},
        )

    def at(self, prefix: Prefix) -> View:
        """The network at this size, in the network's mode; the same View, with its own batch statistics, each time."""
        if prefix not in self._views:
            network, found = self.shortened(prefix)
            self._views[prefix] = view(network, self.example, self.kept(prefix), found)
        return self._views[prefix].train(self.network.training)

    def extract(self, prefix: Prefix) -> nn.Module:
        """This size as a plain network of its own, in evaluation mode; batch statistics are those of its View."""
        return self.at(prefix).plain()

    def shortened(self, prefix: Prefix) -> tuple[nn.Module, Dependencies]:
        """The network at full width with this size's blocks, on the same tensors, and its groups."""
        if prefix.blocks not in self._networks:
            numbers = dict(prefix.blocks)
            gone = [b for s in self.stacks for b in s.blocks[numbers.get(s.blocks[0], len(s.blocks)) :]]
            shorter = without(self.network, gone)
            self._networks[prefix.blocks] = shorter, dependencies(trace(shorter, self.example))
        return self._networks[prefix.blocks]

    def kept(self, prefix: Prefix) -> dict[str, Tensor]:
        """Unit indices by group of the `shortened` network: the leading units of the whole network's groups, which may
        tie more of them together."""
        numbers = dict(prefix.units)
        found = self.shortened(prefix)[1]
        if found is self.known:
            return {name: torch.arange(number) for name, number in numbers.items()}
        gone = self._gone(numbers)
        keep = {}
        for group in found.groups:
            out = torch.zeros(group.size, dtype=torch.bool)
            for part in group.slices:
                name = self.known.graph.aliases.get(part.parameter, part.parameter)
                if (name, part.axis) in gone:
                    out |= gone[name, part.axis][part.index].any(1)
            if bool(out.any()):
                keep[group.name] = (~out).nonzero().flatten()
        return keep

    def _gone(self, numbers: Mapping[str, int]) -> dict[tuple[str, int], Tensor]:
        """Which positions of which axes the size leaves out."""
        graph = self.known.graph
        tensors = {**graph.parameters, **graph.buffers, **graph.constants}
        gone: dict[tuple[str, int], Tensor] = {}
        for group in self.groups:
            for part in group.slices if group.name in numbers else ():
                size = tensors[part.parameter].shape[part.axis]
                mask = gone.setdefault((part.parameter, part.axis), torch.zeros(size, dtype=torch.bool))
                mask[part.index[numbers[group.name] :].flatten()] = True
        return gone


def _rounded(wanted: float, size: int, multiple: int) -> int:
    number = max(1, round(wanted))
    if number < size and size >= 2 * multiple:
        number = max(multiple, multiple * round(number / multiple))
    return min(number, size)


def _counted(kind: str, numbers: Mapping[str, int], sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The numbers that are less than whole, in the order of the network."""
    for name, number in numbers.items():
        if name not in sizes:
            raise UnknownName(f"{kind} in this network", name, sizes)
        if not 1 <= number <= sizes[name]:
            raise BadInput(f"{kind} '{name}' keeps 1 to {sizes[name]}, not {number}")
    return tuple((name, numbers[name]) for name in sizes if numbers.get(name, sizes[name]) < sizes[name])
