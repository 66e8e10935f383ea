"""The stack of like blocks in a network, found by what it does: each block's output is what the next one reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.errors import NotApplicable
from netwright.core.network import Inputs, call, device_of, evaluating, move, without_fast_path


@dataclass(frozen=True, eq=False)
class Call:
    """What a block was called with, its hidden state (B, T, d) first, and what it gave."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def hidden(self) -> Tensor:
        return self.args[0]


@dataclass(frozen=True, eq=False)
class Stack:
    """name: of the list that holds the blocks. calls: of each block in one pass over an example.

    embedding: the parameter that makes the hidden states, if there is one, and its axis of hidden units.
    """

    name: str
    blocks: list[nn.Module]
    calls: list[Call]
    embedding: tuple[str, int] | None = None

    @property
    def width(self) -> int:
        return self.calls[0].hidden.shape[-1]


def stack_of(network: nn.Module, example: Inputs) -> Stack:
    """The longest list of like modules that run one after the other on hidden states (B, T, d) of one width.

    Raises NotApplicable where there is none, or where its blocks read the states of another stack too.
    """
    lists = {
        name: list(module)
        for name, module in network.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and _alike(list(module))
    }
    runs = (
        _record(network, example, [block for blocks in lists.values() for block in blocks])
        if lists
        else _Runs()
    )
    chains = {name: blocks for name, blocks in lists.items() if _chained([runs.of(b) for b in blocks])}
    if not chains:
        raise NotApplicable(
            "it stands beside a stack of like blocks, each reading (batch, positions, width) from the one before, and "
            "this network has no list of such modules"
        )
    name = max(chains, key=lambda each: len(chains[each]))
    for other, blocks in chains.items():
        if _reads_more(runs.of(blocks[0])[0]):
            raise NotApplicable(f"the blocks of '{other}' read another stack's states beside their own")
    calls = [runs.of(block)[0] for block in chains[name]]
    width = calls[0].hidden.shape[-1]
    return Stack(name, chains[name], calls, _embedding(network, runs, chains[name][0], width))


def first(output: Any) -> Any:
    """The hidden state in what a block gives."""
    return output[0] if isinstance(output, tuple) else output


def _alike(members: list[nn.Module]) -> bool:
    return (
        len(members) > 1
        and len({type(m) for m in members}) == 1
        and any(True for _ in members[0].parameters())
    )


def _chained(calls: list[list[Call]]) -> bool:
    if any(len(each) != 1 for each in calls):
        return False
    single = [each[0] for each in calls]
    ends = [(c.args[0] if c.args else None, first(c.output)) for c in single]
    if not all(
        isinstance(a, Tensor) and isinstance(b, Tensor) and a.dim() == 3 and a.shape == b.shape
        for a, b in ends
    ):
        return False
    return all(ends[i][1] is ends[i + 1][0] for i in range(len(ends) - 1))


def _reads_more(given: Call) -> bool:
    """Whether a block is given other states of its width, as a decoder's is."""
    others = (*given.args[1:], *given.kwargs.values())
    return any(
        isinstance(v, Tensor) and v.dim() == 3 and v.shape[-1] == given.hidden.shape[-1] for v in others
    )


@dataclass
class _Runs:
    """Calls by module, and the leaves with parameters in the order in which they ran."""

    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    leaves: list[nn.Module] = field(default_factory=list)

    def of(self, module: nn.Module) -> list[Call]:
        return self.calls.get(module, [])


def _record(network: nn.Module, example: Inputs, blocks: list[nn.Module]) -> _Runs:
    runs, handles = _Runs(), []

    def called(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        runs.calls.setdefault(module, []).append(Call(args, kwargs, output))

    for module in dict.fromkeys(blocks):
        handles.append(module.register_forward_hook(called, with_kwargs=True))
    for module in network.modules():
        if not list(module.children()) and list(module.parameters()):
            handles.append(module.register_forward_pre_hook(lambda m, _: runs.leaves.append(m)))
    for module in dict.fromkeys(blocks):
        handles.append(module.register_forward_pre_hook(lambda m, _: runs.leaves.append(m)))
    try:
        with evaluating(network), torch.no_grad(), without_fast_path():
            call(network, move(example, device_of(network)))
    finally:
        for handle in handles:
            handle.remove()
    return runs


def _embedding(network: nn.Module, runs: _Runs, block: nn.Module, width: int) -> tuple[str, int] | None:
    """The largest look-up table before the first block that gives its width, else the last weighted layer that does."""
    before = runs.leaves[: runs.leaves.index(block)]
    names = {module: name for name, module in network.named_modules()}
    tables = [m for m in before if isinstance(m, nn.Embedding) and m.embedding_dim == width]
    if tables:
        return f"{names[max(tables, key=lambda m: m.num_embeddings)]}.weight", 1
    makers = [
        m for m in before if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d)) and m.weight.shape[0] == width
    ]
    return (f"{names[makers[-1]]}.weight", 0) if makers else None
