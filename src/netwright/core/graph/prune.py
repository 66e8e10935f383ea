"""Networks with fewer units, or with their units in another order."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from netwright.core.errors import BadInput, NotApplicable
from netwright.core.graph.cut import Keep, check, cut, orders, removed_labels
from netwright.core.graph.groups import Dependencies, dependencies
from netwright.core.graph.lift import lift
from netwright.core.graph.reference import masked_outputs
from netwright.core.graph.trace import trace
from netwright.core.network import Inputs, as_tuple, clone, device_of, evaluating, move, seeded


def prune(network: nn.Module, example: Inputs, keep: Keep, known: Dependencies | None = None) -> nn.Module:
    """A new, smaller, plain and trainable network that keeps these units; the given one is not changed.

    keep: group name -> unit indices; groups that are not named keep all.
    example: inputs of the network, batch first. known: `dependencies(trace(network, example))`, if at hand.

    The result has the network's own classes with sliced parameters where its code permits. Where the code
    bakes in sizes (views with constants, multi-head attention with fewer heads), it is a `torch.fx.GraphModule`
    of the same computation, its parameters under their old names. Either is compared with the original whose
    other units are silenced, on the example, before it is returned; NotApplicable if neither agrees.
    """
    inputs = as_tuple(move(as_tuple(example), device_of(network)))
    found = known or dependencies(trace(network, inputs))
    chosen = check(found, keep)
    axes, gone = orders(found, chosen), removed_labels(found, chosen)
    probe = tuple(_typical(t, found.graph.batch) for t in inputs)
    expected = masked_outputs(found, chosen, probe)
    small = clone(network)
    cut(small, found.graph, axes)
    reason = _differs(small, probe, expected)
    if reason is None:
        return small
    try:
        lifted = lift(small, found, axes, gone)
        again = _differs(lifted, probe, expected)
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        again = _line(error)
    if again is not None:
        raise NotApplicable(f"this network cannot be made smaller: {again} (as its own class: {reason})")
    return lifted


def reorder(network: nn.Module, example: Inputs, order: Keep, known: Dependencies | None = None) -> nn.Module:
    """The same network, its units in another order: unit order[i] of a group becomes its unit i.

    order: group name -> permutation of its units. The outputs are unchanged.
    """
    found = known or dependencies(trace(network, example))
    sizes = {group.name: group.size for group in found.groups}
    for name, permutation in check(found, order).items():
        if len(permutation) != sizes[name]:
            raise BadInput(f"an order of group '{name}' must name each of its {sizes[name]} units")
    return prune(network, example, order, found)


def mask(network: nn.Module, keep: Keep, known: Dependencies) -> nn.Module:
    """A copy of the network in which the other units are zero: all their slices, in the layers that make them
    and in those that read them. Groups that are not `exact` still count such units in normalisations.
    """
    masked = clone(network)
    tensors = {**dict(masked.named_parameters()), **dict(masked.named_buffers())}
    chosen = check(known, keep)
    with torch.no_grad():
        for group in known.groups:
            if group.name in chosen:
                out = torch.ones(group.size, dtype=torch.bool)
                out[chosen[group.name]] = False
                for part in group.slices:
                    if part.parameter in tensors:
                        tensor = tensors[part.parameter]
                        tensor.index_fill_(part.axis, part.index[out].flatten().to(tensor.device), 0)
    return masked


def _typical(value: Tensor, batch: int) -> Tensor:
    """The example at the graph's batch size; noise where it is constant and would hide a difference."""
    if value.dim() and value.shape[0] > batch:
        value = value[:batch]
    if value.is_floating_point() and value.numel() > 1 and bool((value == value.flatten()[0]).all()):
        with seeded(0):
            return torch.randn_like(value)
    return value


def _differs(network: nn.Module, probe: tuple[Tensor, ...], expected: list[Tensor]) -> str | None:
    """Why the network does not compute what is expected; None if it does."""
    call: Callable[..., object] = network
    try:
        # a torch.fx.GraphModule whose forward fails writes to stderr by itself
        with evaluating(network), torch.no_grad(), redirect_stderr(io.StringIO()):
            given = [t for t in pytree.tree_leaves(call(*probe)) if isinstance(t, Tensor)]
    except Exception as error:  # the user's own forward, at sizes that it may not expect
        return _line(error)
    if [t.shape for t in given] != [t.shape for t in expected]:
        return "its outputs have other shapes"
    for got, wanted in zip(given, expected, strict=True):
        if not got.is_floating_point() or not got.numel():
            continue
        gap = float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-3))
        if not gap < (1e-3 if got.dtype in (torch.float32, torch.float64) else 3e-2):
            return f"its outputs differ by {gap:.1e} of their size from those of the silenced original"
    return None


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
