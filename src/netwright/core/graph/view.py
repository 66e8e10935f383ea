"""A network run with some of its units, on slices of its own parameters: nothing is copied, and gradients reach it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from netwright.core.graph.cut import Keep, check, orders
from netwright.core.graph.groups import Dependencies
from netwright.core.graph.prune import prune
from netwright.core.network import Inputs, clone

Cut = tuple[int, Tensor | tuple[int, int]]


class View(nn.Module):
    """A smaller network whose parameters are slices of a larger one's, taken anew at each call.

    Batch statistics and other buffers are its own, of its own size: they start as slices of the larger network's and
    are learned in training mode. So `evaluate`, `recalibrate` and `cost` take it like any network. Its own parameters
    are placeholders without memory: do not save it, take `plain()`.
    """

    def __init__(self, shell: nn.Module, source: dict[str, Tensor], cuts: dict[str, list[Cut]]) -> None:
        super().__init__()
        self.shell = shell
        self._source, self._cuts = source, cuts

    def tensors(self) -> dict[str, Tensor]:
        """Name -> the slice of the larger network's parameter. A run of positions is a view of the same memory;
        several runs (the heads' rows of a packed projection) are gathered for the call."""
        return {name: _cut(tensor, self._cuts.get(name, [])) for name, tensor in self._source.items()}

    def forward(self, *inputs: Any) -> Any:
        return functional_call(self.shell, self.tensors(), inputs)

    def plain(self) -> nn.Module:
        """An independent network with copies of what it computes with, in evaluation mode."""
        small = clone(self.shell)
        places: dict[int, list[tuple[nn.Module, str]]] = {}
        names = {id(p): name for name, p in small.named_parameters()}
        for name, parameter in small.named_parameters(remove_duplicate=False):
            owner, _, attribute = name.rpartition(".")
            places.setdefault(id(parameter), []).append((small.get_submodule(owner), attribute))
        tensors = self.tensors()
        for key, where in places.items():
            name = names[key]
            copied = tensors[name].detach().clone(memory_format=torch.contiguous_format)
            parameter = nn.Parameter(copied, requires_grad=self._source[name].requires_grad)
            for owner_, attribute in where:
                setattr(owner_, attribute, parameter)
        return small.eval()


def view(network: nn.Module, example: Inputs, keep: Keep, known: Dependencies) -> View:
    """The network at these units, in evaluation mode.

    keep, example, known: as for `prune`, whose checks and refusals hold here too. Later changes of the network's
    parameters are seen, if they are made in place, as optimisers do.
    """
    shell = prune(network, example, keep, known).eval()
    axes = orders(known, check(known, keep))
    tensors = dict(network.named_parameters(remove_duplicate=False))
    aliases = known.graph.aliases
    source: dict[str, Tensor] = {}
    cuts: dict[str, list[Cut]] = {}
    for name, parameter in list(shell.named_parameters()):
        canonical = aliases.get(name, name)
        source[name] = tensors[canonical]
        cuts[name] = [(axis, _run(order)) for (owner, axis), order in axes.items() if owner == canonical]
        _hollow(shell, name, parameter)
    return View(shell, source, cuts)


def _run(order: Tensor) -> Tensor | tuple[int, int]:
    """(start, length) where positions follow each other."""
    first = int(order[0])
    together = torch.equal(order, torch.arange(first, first + len(order)))
    return (first, len(order)) if together else order


def _cut(tensor: Tensor, cuts: list[Cut]) -> Tensor:
    for axis, part in cuts:
        if isinstance(part, tuple):
            tensor = tensor.narrow(axis, *part)
        else:
            tensor = tensor.index_select(axis, part.to(tensor.device))
    return tensor


def _hollow(shell: nn.Module, name: str, parameter: Tensor) -> None:
    """One number in the place of a parameter, under all of its names, that has its shape and device."""
    hollow = nn.Parameter(parameter.detach().new_zeros(()).expand(parameter.shape), requires_grad=False)
    for other, tensor in list(shell.named_parameters(remove_duplicate=False)):
        if tensor is parameter:
            owner, _, attribute = other.rpartition(".")
            setattr(shell.get_submodule(owner), attribute, hollow)
