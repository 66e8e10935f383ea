"""The weights of a traced network: which there are, rounded in place, and packed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from netwright.compress.parts.int8_graph import CONVOLUTIONS, LINEAR, attribute, finish, layers, tables
from netwright.core.errors import NotApplicable
from netwright.core.weights.bits import PackedBits, fields
from netwright.core.weights.grids import Codebook, Integers, PowerOfTwo, Uniform
from netwright.core.weights.parametrise import Quantiser


@dataclass(frozen=True)
class Weight:
    """A weight (O, ...) by its name in the traced network. layers: the convolutions and linear layers that read it, in
    the order in which they run; none for embeddings and recurrent layers."""

    path: str
    shape: torch.Size
    layers: tuple[fx.Node, ...]


def weights(module: fx.GraphModule) -> list[Weight]:
    """What can be quantised, in the order in which it is used: matrices and kernels, embeddings, recurrent weights.

    NotApplicable: there is nothing.
    """
    found: dict[str, list[fx.Node]] = {}
    for node, _ in layers(module, CONVOLUTIONS | LINEAR):
        found.setdefault(node.args[1].target, []).append(node)
    for _, path, _, _ in tables(module):
        found.setdefault(path, [])
    if not found:
        raise NotApplicable("there is no convolution, linear layer, embedding or recurrent layer to quantise")
    return [Weight(path, attribute(module, path).shape, tuple(read)) for path, read in found.items()]


@dataclass(frozen=True)
class Rounded:
    """What becomes of a weight: its integers, their bits, and its values (O, ...)."""

    twin: Integers
    bits: int
    values: Tensor

    @classmethod
    def of(cls, weight: Tensor, quantiser: Quantiser, twin: Integers) -> Rounded:
        bits = quantiser.grid.bits  # type: ignore[attr-defined]
        return cls(twin, bits, quantiser.unrows(twin.values(), weight).contiguous())


def size(shape: torch.Size, quantiser: Quantiser) -> int:
    """Bytes of a weight of this shape once it is packed (`PackedBits`), with zeros and levels of its grid, its scales
    in half precision. Of a `Codebook` without runs, and of powers of two of 5 bits at most."""
    rows, grid = quantiser.rows(torch.empty(shape, device="meta")).shape, quantiser.grid
    bits: int = grid.bits  # type: ignore[attr-defined]
    numbers = [math.prod(rows)]
    if isinstance(grid, Uniform) and not grid.symmetric:
        numbers.append(rows[0])
    packed = sum(math.ceil(n * width / 8) for n in numbers for width, _ in fields(bits))
    if isinstance(grid, Codebook):
        return packed + 2 + 4 * rows[0] * 2**bits
    return packed + 2 * rows[0] + (2 * (2**bits - 1) if isinstance(grid, PowerOfTwo) else 0)


def simulated(
    module: fx.GraphModule, rounded: Mapping[str, Rounded], biases: Mapping[str, Tensor]
) -> nn.Module:
    """The network with rounded weights in float. Changes the graph module, which is used up."""
    with torch.no_grad():
        for path, found in rounded.items():
            attribute(module, path).copy_(found.values)
        _set_biases(module, biases)
    return finish(module)


def packed(module: fx.GraphModule, rounded: Mapping[str, Rounded], biases: Mapping[str, Tensor]) -> nn.Module:
    """The network with packed weights, equal to the simulated one to the bit. The graph module is used up."""
    with torch.no_grad():
        _set_biases(module, biases)
    for node in list(module.graph.nodes):
        if node.op == "get_attr" and node.target in rounded:
            found, name = rounded[node.target], f"{node.target}_packed"
            if name not in dict(module.named_modules()):
                module.add_submodule(name, PackedBits(found.twin, found.bits, found.values.shape))
            with module.graph.inserting_before(node):
                new = module.graph.call_module(name, ())
            new.meta = {"val": node.meta.get("val")}
            node.replace_all_uses_with(new)
    return finish(module)


def _set_biases(module: fx.GraphModule, biases: Mapping[str, Tensor]) -> None:
    """biases: by layer node. A layer that has none is given one."""
    for node in [n for n in module.graph.nodes if n.name in biases]:
        held = node.args[2] if len(node.args) > 2 else None
        if held is not None:
            attribute(module, held.target).copy_(biases[node.name])
            continue
        name = f"{node.name}_bias"
        module.register_parameter(name, nn.Parameter(biases[node.name].clone(), requires_grad=False))
        with module.graph.inserting_before(node):
            made = module.graph.get_attr(name)
        made.meta = {"val": biases[node.name]}
        node.args = (*node.args[:2], made, *node.args[3:])
