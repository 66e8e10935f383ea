"""What stands for an ONNX value while a network is read: a constant, a tensor that is computed, or sizes.

Sizes (what Shape gives, and all arithmetic on it) are kept apart from tensors: a numpy array of objects, each an
integer or a `Size`, which is an integer that the finished network computes from the batch. So no shape goes
through a tensor, and the network can be traced with a dynamic batch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, fx


@dataclass
class Const:
    """A tensor known when the network is read.

    weight: it comes from the file's weights, so it is trained if it has a floating type.
    base, axes: the weight that it is, and how its axes were permuted since; so a weight that is used twice, once
    transposed, stays one parameter.
    """

    tensor: Tensor
    name: str = ""
    weight: bool = False
    axes: tuple[int, ...] = ()
    path: str = ""

    def __post_init__(self) -> None:
        if not self.axes:
            self.axes = tuple(range(self.tensor.dim()))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dim(self) -> int:
        return self.tensor.dim()

    def permute(self, axes: tuple[int, ...]) -> Const:
        tensor = self.tensor.permute(axes).contiguous()
        return Const(tensor, self.name, self.weight, tuple(self.axes[a] for a in axes), self.path)


@dataclass
class Value:
    """A tensor that the network computes. probes: the same on two batch sizes, without its numbers.

    zeros: all its numbers are known to be zero. rounded: the arguments of the rounding that made it.
    outer: where the axis of the batch holds more than the batch, how much of that comes before it: 9 for
    (9 * batch) made of (9, batch), 1 for (batch * 8) made of (batch, 8).
    """

    node: fx.Node
    probes: tuple[Tensor, ...]
    zeros: bool = False
    rounded: tuple[Any, ...] = field(default=(), repr=False)
    outer: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """At the first probe's batch size."""
        return tuple(self.probes[0].shape)

    @property
    def dim(self) -> int:
        return self.probes[0].dim()

    def varies(self, axis: int) -> bool:
        """Whether this size depends on the batch."""
        return len({p.shape[axis] for p in self.probes}) > 1

    @property
    def batch_axis(self) -> int | None:
        """The one axis whose size depends on the batch; None if none does, or several do."""
        found = [axis for axis in range(self.dim) if self.varies(axis)]
        return found[0] if len(found) == 1 else None

    def batch_sizes(self) -> tuple[int, ...]:
        """The sizes of that axis at the probes."""
        axis = self.batch_axis
        return () if axis is None else tuple(p.shape[axis] for p in self.probes)


class Size:
    """An integer (or float) that the network computes from its inputs' sizes.

    step: writes a step into the network (`Emitter.call`), so that arithmetic on sizes is part of it.
    """

    def __init__(self, step: Callable[..., Any], node: fx.Node, probes: tuple[Any, ...]) -> None:
        self.step, self.node, self.probes = step, node, probes

    def _with(self, function: Callable[..., Any], *others: Any) -> Any:
        return self.step(function, self, *others)

    def __add__(self, other: Any) -> Any:
        return self._with(operator.add, other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return self._with(operator.mul, other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Any:
        return self._with(operator.sub, other)

    def __rsub__(self, other: Any) -> Any:
        return self.step(operator.sub, other, self)

    def __floordiv__(self, other: Any) -> Any:
        return self._with(operator.floordiv, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self.step(operator.floordiv, other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._with(operator.truediv, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.step(operator.truediv, other, self)

    def __mod__(self, other: Any) -> Any:
        return self._with(operator.mod, other)

    def __neg__(self) -> Any:
        return self._with(operator.neg)

    def _agree(self, function: Callable[[Any, Any], bool], other: Any) -> bool:
        others = other.probes if isinstance(other, Size) else (other,) * len(self.probes)
        answers = {bool(function(a, b)) for a, b in zip(self.probes, others, strict=True)}
        if len(answers) > 1:
            raise ValueError("what it does depends on the batch size")
        return answers.pop()

    def __eq__(self, other: object) -> bool:
        return self._agree(operator.eq, other)

    def __lt__(self, other: Any) -> bool:
        return self._agree(operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self._agree(operator.le, other)

    def __gt__(self, other: Any) -> bool:
        return self._agree(operator.gt, other)

    def __ge__(self, other: Any) -> bool:
        return self._agree(operator.ge, other)

    __hash__ = object.__hash__


Operand: TypeAlias = Const | Value | np.ndarray | None
Results: TypeAlias = Operand | tuple[Operand, ...] | list[Operand]
