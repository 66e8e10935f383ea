"""Networks of double or half precision, brought to single precision: what everything here computes in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from netwright.core.errors import BadInput
from netwright.core.files.facts import describe, facts_of
from netwright.core.measure.difference import relative_error
from netwright.core.network import clone, evaluating

_OTHER = (torch.float64, torch.float16, torch.bfloat16)
_NAMES = {torch.float64: "float64", torch.float16: "float16", torch.bfloat16: "bfloat16"}
TOLERANCE, TOLERANCE_HALF = 1e-4, 2e-2


def single(network: nn.Module, example: tuple[Tensor, ...]) -> tuple[nn.Module, str]:
    """The network in float32 and what is to be said of it; itself and '' where it is in float32 already.

    example: inputs that it takes, of whatever precision. BadInput where the outputs in float32 are others than in the
    network's own precision.
    """
    kinds = {t.dtype for t in (*network.parameters(), *network.buffers())} & set(_OTHER)
    kinds |= {getattr(torch, name) for name in facts_of(network).get("types", ()) if name in _NAMES.values()}
    if not kinds:
        return network, ""
    own = max(kinds, key=lambda kind: torch.finfo(kind).bits)
    made = clone(network).float()
    if isinstance(made, fx.GraphModule):
        _rewrite(made)
    facts = facts_of(network)
    if "types" in facts:
        describe(made, {**facts, "types": ["float32" if t in _NAMES.values() else t for t in facts["types"]]})
    inputs = _taken(network, example, own)
    if inputs is None:
        return made, f"it was in {_NAMES[own]} and is float32 here"
    try:
        with evaluating(network), evaluating(made), torch.no_grad():
            before = network(*inputs)
            after = made(*(t.float() if t.is_floating_point() else t for t in inputs))
    except Exception as error:
        raise BadInput(
            f"the network is in {_NAMES[own]}, and does not run in float32 ({str(error).strip().partition(chr(10))[0]})"
        ) from error
    pairs = zip(_tensors(before), _tensors(after), strict=True)
    worst = max((relative_error(a.float(), b.float()) for a, b in pairs), default=0.0)
    if not worst <= (TOLERANCE if own == torch.float64 else TOLERANCE_HALF):
        raise BadInput(f"the network is in {_NAMES[own]}; in float32 its outputs are others (by {worst:.2g})")
    return made, f"it was in {_NAMES[own]} and is float32 here: outputs differ by {worst:.1g} of the largest"


def _taken(network: nn.Module, example: tuple[Tensor, ...], own: torch.dtype) -> tuple[Tensor, ...] | None:
    """The example in the network's precision, pictures with their channels where it takes them; None if it takes
    neither."""
    given = tuple(t.to(own) if t.is_floating_point() else t for t in example)
    turned = given[0].permute(0, 2, 3, 1).contiguous() if given[0].dim() == 4 else given[0]
    for inputs in (given, (turned, *given[1:])):
        try:
            with evaluating(network), torch.no_grad():
                network(*inputs)
            return inputs
        except Exception:
            continue
    return None


def _tensors(output: Any) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(output) if isinstance(t, Tensor)]


def _rewrite(network: fx.GraphModule) -> None:
    """Steps that make a tensor of another precision make float32."""
    for node in network.graph.nodes:
        change = lambda value: torch.float32 if value in _OTHER else value
        node.args = fx.node.map_aggregate(node.args, change)
        node.kwargs = fx.node.map_aggregate(node.kwargs, change)
    network.recompile()
