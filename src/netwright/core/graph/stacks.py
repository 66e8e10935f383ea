"""Stacks: blocks of one kind that run one after another, of which the last ones can be left out."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from netwright.core.network import Inputs, as_tuple, call, device_of, evaluating, move


@dataclass(frozen=True)
class Stack:
    """name: of the container; the network's own name '' where it is that itself. blocks: names of its blocks in the
    order in which they run. The first one always stays: it may change the shape of what passes, the others do not.
    """

    name: str
    blocks: tuple[str, ...]


class Skip(nn.Module):
    """In the place of a block that is left out: gives what the block was given."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x


def stacks(network: nn.Module, example: Inputs) -> list[Stack]:
    """The stacks of a network, found by running it.

    A stack is a run of neighbours in an nn.Sequential or nn.ModuleList: of the same class, with layers inside, each
    called once, on the very tensor that its predecessor gave, and giving one of the same shape. One that does not work
    without its last blocks (the code asks something else of them) is none.
    """
    inputs = as_tuple(move(as_tuple(example), device_of(network)))
    calls = _calls(network, inputs)
    found = [
        Stack(name, run)
        for name, container in network.named_modules()
        if isinstance(container, (nn.Sequential, nn.ModuleList))
        for run in _runs(name, container, calls)
    ]
    return [stack for stack in found if _removable(network, stack, inputs)]


def without(network: nn.Module, blocks: Iterable[str]) -> nn.Module:
    """The network without these blocks: new modules that hold the given network's own tensors, no copies of them."""
    own = [*network.parameters(), *network.buffers()]
    shorter = copy.deepcopy(network, {id(tensor): tensor for tensor in own})
    for block in blocks:
        shorter.set_submodule(block, Skip())
    return shorter


@dataclass
class _Call:
    """What a block was given first, and what it gave."""

    given: Any
    gave: Any
    times: int = 1


def _calls(network: nn.Module, inputs: tuple[Tensor, ...]) -> dict[nn.Module, _Call]:
    calls: dict[nn.Module, _Call] = {}

    def seen(module: nn.Module, args: tuple[Any, ...], gave: Any) -> None:
        if module in calls:
            calls[module].times += 1
        else:
            calls[module] = _Call(args[0] if args else None, gave)

    candidates = {
        child: None
        for module in network.modules()
        if isinstance(module, (nn.Sequential, nn.ModuleList))
        for child in module.children()
    }
    handles = [module.register_forward_hook(seen) for module in candidates]
    try:
        with evaluating(network), torch.no_grad():
            call(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _runs(name: str, container: nn.Module, calls: dict[nn.Module, _Call]) -> list[tuple[str, ...]]:
    runs: list[list[tuple[str, nn.Module]]] = []
    for key, child in container.named_children():
        block = f"{name}.{key}" if name else key
        if runs and _follows(runs[-1][-1][1], child, calls):
            runs[-1].append((block, child))
        else:
            runs.append([(block, child)])
    return [tuple(block for block, _ in run) for run in runs if len(run) > 1]


def _follows(before: nn.Module, block: nn.Module, calls: dict[nn.Module, _Call]) -> bool:
    """Whether a block continues the stack that its neighbour belongs to."""
    if type(before) is not type(block) or not any(True for _ in block.children()):
        return False
    if isinstance(block, nn.Sequential) and repr(before) != repr(block):
        return False  # the class says nothing
    first, second = calls.get(before), calls.get(block)
    if first is None or second is None or first.times > 1 or second.times > 1:
        return False
    kept = isinstance(second.gave, Tensor) and isinstance(second.given, Tensor)
    return (
        kept
        and second.given is first.gave
        and second.gave.shape == second.given.shape
        and any(True for _ in block.parameters())
    )


def _removable(network: nn.Module, stack: Stack, inputs: tuple[Tensor, ...]) -> bool:
    """Whether the network without all that can go computes what it does with those blocks passed by."""
    gone = stack.blocks[1:]
    skip = lambda _module, args, _gave: args[0]
    handles = [network.get_submodule(block).register_forward_hook(skip) for block in gone]
    try:
        with evaluating(network), torch.no_grad():
            expected = pytree.tree_leaves(call(network, inputs))
    finally:
        for handle in handles:
            handle.remove()
    shorter = without(network, gone)
    try:
        with evaluating(shorter), torch.no_grad():
            given = pytree.tree_leaves(call(shorter, inputs))
    except Exception:  # the user's own forward, which may ask anything of its blocks
        return False
    return len(given) == len(expected) and all(
        not isinstance(b, Tensor) or torch.equal(a, b) for a, b in zip(given, expected, strict=True)
    )
