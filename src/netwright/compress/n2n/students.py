"""What the policies choose among: layers to drop, attributes to shrink; and the students that come of it, on the
teacher's own weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.errors import NotApplicable
from netwright.core.graph import Dependencies, dependencies, prune, trace
from netwright.core.graph.stacks import without
from netwright.core.network import Inputs, call, clone, evaluating

LAYER_FEATURES, ATTRIBUTE_FEATURES = 8, 4
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Layer:
    """A layer, or a block of several, in the order in which they begin. droppable: it runs once and gives what has the
    shape of what it is given."""

    name: str
    droppable: bool
    described: tuple[float, ...]


@dataclass(frozen=True)
class Attribute:
    """What can shrink: the width of a group of units that belong together, or a convolution's kernel. size: today's."""

    kind: str
    name: str
    size: int
    described: tuple[float, ...]


def layers(network: nn.Module, example: Inputs) -> list[Layer]:
    """All convolutions, linear layers and droppable blocks that run. Described by: whether a convolution, linear, or a
    block; kernel, stride, padding; the logarithm of the outputs; whether a block with a shortcut begins or ends there.
    """
    names = {module: name for name, module in network.named_modules()}
    order: list[nn.Module] = []
    runs: dict[nn.Module, list[bool]] = {}
    widths: dict[nn.Module, int] = {}

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        if module not in runs:
            order.append(module)
            runs[module] = []

    def after(module: nn.Module, args: tuple[Any, ...], gave: Any) -> None:
        same = (
            bool(args)
            and isinstance(gave, Tensor)
            and isinstance(args[0], Tensor)
            and gave.shape == args[0].shape
        )
        runs[module].append(same)
        widths[module] = gave.shape[1] if isinstance(gave, Tensor) and gave.dim() > 1 else 1

    chosen = [m for m in network.modules() if names[m] and _counts(m)]
    handles = [m.register_forward_pre_hook(before) for m in chosen]
    handles += [m.register_forward_hook(after) for m in chosen]
    try:
        with evaluating(network), torch.no_grad():
            call(network, example)
    finally:
        for handle in handles:
            handle.remove()
    able = {m: runs[m] == [True] and not isinstance(m, nn.Sequential) for m in order}
    kept = [m for m in order if _leaf(m) or able[m]]
    blocks = [m for m in kept if not _leaf(m)]
    ends = {id(part) for block in blocks for part in _ends(block)}
    return [Layer(names[m], able[m], (*_described(m, widths[m]), float(id(m) in ends))) for m in kept]


def _leaf(module: nn.Module) -> bool:
    return isinstance(module, (*_CONVOLUTIONS, nn.Linear))


def _counts(module: nn.Module) -> bool:
    """A convolution or linear layer, or something that has one inside."""
    return _leaf(module) or any(_leaf(m) for m in module.modules())


def _ends(block: nn.Module) -> list[nn.Module]:
    """The first and the last layer inside a block."""
    inside = [m for m in block.modules() if _leaf(m)]
    return [inside[0], inside[-1]]


def _described(module: Any, width: int) -> tuple[float, ...]:
    if isinstance(module, _CONVOLUTIONS):
        padding = 0 if isinstance(module.padding, str) else module.padding[0]
        return (
            1.0,
            0.0,
            0.0,
            module.kernel_size[0] / 7,
            module.stride[0] / 4,
            padding / 3,
            math.log2(width) / 10,
        )
    if isinstance(module, nn.Linear):
        return 0.0, 1.0, 0.0, 1 / 7, 1 / 4, 0.0, math.log2(width) / 10
    return 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, math.log2(width) / 10


def dropped(teacher: nn.Module, names: Sequence[str]) -> nn.Module:
    """A copy of the teacher without these layers. NotApplicable where that leaves nothing that computes."""
    inside = lambda name: any(name != other and name.startswith(f"{other}.") for other in names)
    return clone(without(teacher, [name for name in names if not inside(name)]))


class Shapes:
    """All shrunken shapes of one network. Shares its dependency graph among them."""

    def __init__(self, network: nn.Module, example: Inputs) -> None:
        self.network, self.example = network, example
        self.known: Dependencies = dependencies(trace(network, example))
        self.attributes = [
            Attribute("width", group.name, group.size, (1.0, 0.0, math.log2(group.size) / 10, 0.0))
            for group in self.known.groups
            if group.size > 1
        ]
        self.attributes += [
            Attribute("kernel", name, size, (0.0, 1.0, math.log2(module.weight.shape[0]) / 10, size / 7))
            for name, module in network.named_modules()
            if isinstance(module, _CONVOLUTIONS) and (size := _kernel(module)) > 1
        ]
        if not self.attributes:
            raise NotApplicable("this network has neither units nor kernels that could shrink")

    def sizes(self, multipliers: Sequence[float]) -> dict[tuple[str, str], int]:
        """By kind and name, what is left of each attribute: at least 1; kernels stay odd."""
        found = {}
        for attribute, factor in zip(self.attributes, multipliers, strict=True):
            left = max(1, round(factor * attribute.size))
            if attribute.kind == "kernel":
                left -= 1 - left % 2
            found[attribute.kind, attribute.name] = max(1, left)
        return found

    def student(self, sizes: Mapping[tuple[str, str], int]) -> nn.Module:
        """The leading units of each group, the middle of each kernel, with the weights that they have."""
        keep = {name: range(size) for (kind, name), size in sizes.items() if kind == "width"}
        small = prune(self.network, self.example, keep, self.known)
        modules = dict(small.named_modules())
        for (kind, name), size in sizes.items():
            if kind == "kernel" and isinstance(modules.get(name), _CONVOLUTIONS):
                _crop(modules[name], size)
        return small


def _kernel(module: Any) -> int:
    """The side of a kernel that can be cut to its middle without a change of the output's size, else 1."""
    sides, steps = set(module.kernel_size), set(module.dilation)
    if len(sides) > 1 or len(steps) > 1 or isinstance(module.padding, str) or module.padding_mode != "zeros":
        return 1
    side, step = sides.pop(), steps.pop()
    return side if side % 2 and set(module.padding) == {step * (side - 1) // 2} else 1


def _crop(module: Any, size: int) -> None:
    margin = (module.kernel_size[0] - size) // 2
    if not margin:
        return
    middle = (slice(margin, margin + size),) * (module.weight.dim() - 2)
    module.weight = nn.Parameter(module.weight.detach()[(..., *middle)].clone(), module.weight.requires_grad)
    dimensions = len(module.kernel_size)
    module.kernel_size = (size,) * dimensions
    module.padding = tuple(p - margin * d for p, d in zip(module.padding, module.dilation, strict=True))
    # padding_mode 'zeros' alone gets here, so that what torch derives from the padding for other modes is not read
    module._reversed_padding_repeated_twice = [p for p in reversed(module.padding) for _ in range(2)]
