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

_NOISE = 7  # inputs to compare on, beside the example


def prune(network: nn.Module, example: Inputs, keep: Keep, known: Dependencies | None = None) -> nn.Module:
    """A new, smaller, plain and trainable network that keeps these units; the given one is not changed.

    keep: group name -> unit indices; groups that are not named keep all.
    example: inputs of the network, batch first. known: `dependencies(trace(network, example))`, if at hand.

    The result has the network's own classes with sliced parameters where its code permits. Where the code
    bakes in sizes (views with constants, multi-head attention with fewer heads), it is a `torch.fx.GraphModule`
    of the same computation, its parameters under their old names. Either is compared with the original whose
    other units are silenced, on the example and on noise, before it is returned; NotApplicable if neither agrees.
    """
    inputs = as_tuple(move(as_tuple(example), device_of(network)))
    found = known or dependencies(trace(network, inputs))
    chosen = check(found, keep)
    axes, gone = orders(found, chosen), removed_labels(found, chosen)
    probes, expected = _expected(found, chosen, inputs)
    small = clone(network)
    cut(small, found.graph, axes)
    reason = _differs(small, probes, expected)
    if reason is None:
        return small
    try:
        lifted = lift(small, found, axes, gone)
        again = _differs(lifted, probes, expected)
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


Probe = tuple[Tensor, ...]


def _expected(
    found: Dependencies, keep: dict[str, Tensor], inputs: Probe
) -> tuple[list[Probe], list[list[Tensor]]]:
    """Inputs to compare on, and the outputs of the silenced original."""
    graph = found.graph
    probes = _probes(
        tuple(t[: n.shape[0]] if n.shape else t for t, n in zip(inputs, graph.inputs, strict=True))
    )
    if graph.dynamic:
        batched = [bool(node.shape) and node.shape[0] == 1 for node in graph.inputs]
        parts = zip(batched, zip(*probes, strict=True), strict=True)
        together = tuple(torch.cat(part) if wide else part[0] for wide, part in parts)
        try:
            return [together], [masked_outputs(found, keep, _copies(together))]
        except RuntimeError:
            pass  # units lie along the batch, which is one in the graph's shapes
    return probes, [masked_outputs(found, keep, _copies(probe)) for probe in probes]


def _probes(first: Probe) -> list[Probe]:
    """The example and noise like it: on one input alone, a unit that is wrong may be silent.

    An example that is constant would hide differences, and goes.
    """
    floats = [t for t in first if t.is_floating_point() and t.numel() > 1]
    with seeded(0):
        noise = [tuple(_noise(t) if t.numel() > 1 else t for t in first) for _ in range(_NOISE)]
    return noise if any(bool((t == t.flatten()[0]).all()) for t in floats) else [first, *noise]


def _noise(like: Tensor) -> Tensor:
    """Numbers as large; whole numbers are drawn from those that are there, which the network takes."""
    if not like.is_floating_point():
        return like.flatten()[torch.randint(like.numel(), like.shape).to(like.device)]
    size = like.float().square().mean().sqrt()
    return (torch.randn(like.shape).to(like.device) * (size if size > 0 else 1.0)).to(like.dtype)


def _copies(probe: Probe) -> Probe:
    """For networks that write to their inputs."""
    return tuple(t.clone() for t in probe)


def _differs(network: nn.Module, probes: list[Probe], expected: list[list[Tensor]]) -> str | None:
    """Why the network does not compute what is expected; None if it does."""
    reasons = (_differs_on(network, *each) for each in zip(probes, expected, strict=True))
    return next((reason for reason in reasons if reason is not None), None)


def _differs_on(network: nn.Module, probe: Probe, expected: list[Tensor]) -> str | None:
    call: Callable[..., object] = network
    try:
        # a torch.fx.GraphModule whose forward fails writes to stderr by itself
        with evaluating(network), torch.no_grad(), redirect_stderr(io.StringIO()):
            given = [t for t in pytree.tree_leaves(call(*_copies(probe))) if isinstance(t, Tensor)]
    except Exception as error:  # the user's own forward, at sizes that it may not expect
        return _line(error)
    if [t.shape for t in given] != [t.shape for t in expected]:
        return "its outputs have other shapes"
    for got, wanted in zip(given, expected, strict=True):
        if not got.is_floating_point() or not got.numel():
            continue
        if not bool(wanted.isfinite().any()):
            return "its outputs are no numbers"
        # noise may lie where a network has no values (a logarithm)
        got, wanted = got.nan_to_num(0.0, 0.0, 0.0), wanted.nan_to_num(0.0, 0.0, 0.0)
        gap = float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-3))
        if not gap < (1e-3 if got.dtype in (torch.float32, torch.float64) else 3e-2):
            return f"its outputs differ by {gap:.1e} of their size from those of the silenced original"
    return None


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
