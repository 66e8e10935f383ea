"""A traced network as steps on one example: what bounds are computed over.

The graph is taken at batch one and mapped over examples (and over rows of coefficients) by torch.func.vmap. So a
rule never asks where the batch stands, and a network whose batch is fixed, or folded into another dimension, is
served like any other. Whatever does not depend on the input (transposed weights, sizes) is computed once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.errors import NotApplicable
from netwright.core.graph import Graph, Node, trace
from netwright.core.graph.ir import HELD, INPUT, replace


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, *rest: float
) -> tuple[Tensor]:
    """Batch norm with its stored statistics, in a form that vmap maps without a loop. rest: momentum, epsilon."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    scale = (variance + rest[1]).rsqrt() * (1 if weight is None else weight)
    shift = -mean * scale + (0 if bias is None else bias)
    return (x * scale.reshape(shape) + shift.reshape(shape),)


# These compute the same values; a view of a tensor that vmap has laid out its own way may need a copy. A cast is
# one of them between the types that its row in the table admits.
_TARGETS: dict[str, Callable[..., Any]] = {
    "aten.view.default": torch.reshape,
    "aten._unsafe_view.default": torch.reshape,
    "aten.clone.default": lambda x, **_: x,
    "aten._to_copy.default": lambda x, **_: x,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
}


@dataclass(eq=False, repr=False)
class Step:
    """One operator whose result depends on the input.

    op: its ATen name; for the taking apart of a tuple, the name of what gave the tuple, and `part` which one.
    sources: the steps that it reads, each once. args: as the node's, with sources in their places.
    shape: of the result for one example, the batch dimension of one included where the network has one.
    dtype: what is computed in; original: the type of the result in the network itself.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    sources: tuple[Step, ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    target: Callable[..., Any] | None = None
    part: int | None = None
    dtype: torch.dtype = torch.float32
    device: torch.device | None = None
    original: torch.dtype | None = None

    def __repr__(self) -> str:
        return f"{self.name}: {self.op}({', '.join(s.name for s in self.sources)}) {list(self.shape)}"

    @property
    def size(self) -> int:
        return int(torch.Size(self.shape).numel())

    def varies(self, position: int) -> bool:
        """Whether the argument at this position depends on the input."""
        return position < len(self.args) and bool(_steps(self.args[position]))

    def occurrences(self) -> int:
        """How many of its arguments depend on the input, one that is named twice counted twice."""
        return sum(len(_steps(value)) for value in (*self.args, *self.kwargs.values()))

    def arguments(self, *values: Tensor) -> list[Any]:
        """The positional arguments, with one tensor per source."""
        found = dict(zip(self.sources, values, strict=True))
        return [_fill(value, found) for value in self.args]

    def apply(self, args: list[Any], kwargs: dict[str, Any] | None = None) -> Tensor:
        assert self.target is not None
        result = self.target(*args, **(self.kwargs if kwargs is None else kwargs))
        return result if self.part is None else result[self.part]

    def __call__(self, *values: Tensor) -> Tensor:
        """The result for one example."""
        return self.apply(self.arguments(*values))

    @cached_property
    def affine(self) -> tuple[Tensor | None, Callable[[Tensor], tuple[Tensor, ...]]]:
        """For an affine step: its value at zero (None if that is zero), and the transpose of its linear part."""
        zeros = [torch.zeros(s.shape, dtype=self.dtype, device=self.device) for s in self.sources]
        offset, transpose = torch.func.vjp(self, *zeros)
        return (offset.detach() if bool(offset.any()) else None), transpose


@dataclass(eq=False)
class Program:
    """Steps in the order in which they run, the input first."""

    steps: list[Step]
    input: Step
    output: Step

    def upto(self, last: Step) -> list[Step]:
        return self.steps[: self.steps.index(last) + 1]

    def __getitem__(self, name: str) -> Step:
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)


def steps_of(network: nn.Module, example: Tensor, dtype: torch.dtype) -> Program:
    """Trace a network of one input and one output, to be run in `dtype`.

    What does not depend on the input is computed as the network does, in its own types, and then taken to `dtype`.
    """
    graph = trace(network, (example[:1],), level="core")
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise NotApplicable(
            f"bounds need one input and one output; this network has {len(graph.inputs)} and {len(graph.outputs)}"
        )
    return _Reader(graph, dtype, example.device).read()


class _Reader:
    def __init__(self, graph: Graph, dtype: torch.dtype, device: torch.device) -> None:
        self.graph, self.dtype, self.device = graph, dtype, device
        self.steps: dict[Node, Step] = {}
        self.tuples: dict[Node, Step] = {}
        self.fixed: dict[Node, Any] = {}

    def read(self) -> Program:
        given, output = self.graph.inputs[0], self.graph.outputs[0]
        with torch.no_grad():
            for node in self.graph.nodes:
                self._node(node)
        if output not in self.steps:
            raise NotApplicable("the output does not depend on the input; there is nothing to bound")
        return Program(list(self.steps.values()), self.steps[given], self.steps[output])

    def _node(self, node: Node) -> None:
        if node.op == INPUT:
            self.steps[node] = Step(
                node.name, INPUT, node.shape, dtype=self.dtype, device=self.device, original=node.dtype
            )
        elif node.op in HELD:
            self.fixed[node] = self.graph.held(node).detach()
        elif node.op.startswith("aten.sym_size"):
            self.fixed[node] = node.args[0].shape[node.args[1]]
        elif node.target is operator.getitem and node.args[0] in self.tuples:
            whole = self.tuples[node.args[0]]
            self.steps[node] = Step(
                node.name, whole.op, node.shape, whole.sources, whole.args, whole.kwargs, whole.target,
                node.args[1], self.dtype, self.device, node.dtype,
            )  # fmt: skip
        elif any(n in self.steps for n in node.inputs):
            self._varying(node)
        elif torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise NotApplicable(
                f"node '{node.name}' ({node.op}) draws at random; there is no one network to bound"
            )
        elif node.target is not None:
            lookup = self.fixed.__getitem__
            kwargs = {k: replace(v, lookup) for k, v in node.kwargs.items()}
            self.fixed[node] = node.target(*replace(node.args, lookup), **kwargs)

    def _varying(self, node: Node) -> None:
        sources = tuple(dict.fromkeys(self.steps[n] for n in node.inputs if n in self.steps))
        lookup = lambda n: self.steps[n] if n in self.steps else self._taken(self.fixed[n])
        step = Step(
            node.name, node.op, node.shape, sources, replace(node.args, lookup),
            {k: replace(v, lookup) for k, v in node.kwargs.items()}, _TARGETS.get(node.op, node.target),
            dtype=self.dtype, device=self.device, original=node.dtype,
        )  # fmt: skip
        (self.steps if node.dtype is not None else self.tuples)[node] = step

    def _taken(self, value: Any) -> Any:
        return value.to(self.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _steps(value: Any) -> list[Step]:
    if isinstance(value, Step):
        return [value]
    return [s for item in value for s in _steps(item)] if isinstance(value, (list, tuple)) else []


def _fill(value: Any, found: dict[Step, Tensor]) -> Any:
    if isinstance(value, Step):
        return found[value]
    return type(value)(_fill(v, found) for v in value) if isinstance(value, (list, tuple)) else value
