"""What a traced network looks like: nodes in the order in which they run, and the tensors that it owns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Level = Literal["structure", "core"]

INPUT, PARAMETER, BUFFER, CONSTANT = "input", "parameter", "buffer", "constant"
HELD = (PARAMETER, BUFFER, CONSTANT)


@dataclass(eq=False)
class Node:
    """One step of a network.

    op: 'input', 'parameter', 'buffer' or 'constant' for what the network is given or holds; else the operator,
    such as 'aten.conv2d.default', 'operator.getitem', 'operator.mul' (the last on sizes).
    args, kwargs: other nodes, numbers, None, or lists of these. A size that depends on the batch is a node
    ('aten.sym_size.int'), so that running the nodes gives the right sizes at any batch.
    shape, dtype: of the result at batch `Graph.batch`; (), None where it is no single tensor (the nodes
    'operator.getitem' that take it apart have theirs).
    parameter: for tensors held by the network, their name in `Graph.parameters`, `buffers` or `constants`.
    module: name of the module in whose forward the node stands ('' for the network itself), None if unknown.
    target: what to call to run it.
    """

    name: str
    op: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    dtype: torch.dtype | None = None
    parameter: str | None = None
    module: str | None = None
    target: Callable[..., Any] | None = None
    users: list[Node] = field(default_factory=list)

    @property
    def inputs(self) -> list[Node]:
        """The nodes that it reads, in order, each as often as it is named."""
        found: list[Node] = []
        for value in (*self.args, *self.kwargs.values()):
            _collect(value, found)
        return found

    def __repr__(self) -> str:
        return f"{self.name}: {self.op}({', '.join(n.name for n in self.inputs)}) {list(self.shape)}"


def _collect(value: Any, found: list[Node]) -> None:
    if isinstance(value, Node):
        found.append(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, found)


def replace(value: Any, with_: Callable[[Node], Any]) -> Any:
    """An argument with each node in it replaced."""
    if isinstance(value, Node):
        return with_(value)
    if isinstance(value, (list, tuple)):
        return type(value)(replace(item, with_) for item in value)
    return value


@dataclass(eq=False)
class Graph:
    """A traced network.

    nodes: in the order in which they run, inputs and held tensors first.
    parameters, buffers, constants: the network's own tensors (not copies) by name; a tensor that several
    modules share stands once, under its first name, and `aliases` maps every other name to that one.
    outputs: the tensors that the network returns, flattened; dynamic: whether the batch may vary. `batch` is
    the batch size that the shapes are written for: 1 if it may vary, else that of the example.
    """

    nodes: list[Node]
    inputs: list[Node]
    outputs: list[Node]
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    constants: dict[str, Tensor]
    aliases: dict[str, str]
    level: Level
    dynamic: bool
    batch: int
    program: torch.export.ExportedProgram = field(repr=False)

    def held(self, node: Node) -> Tensor:
        """The tensor of a node 'parameter', 'buffer' or 'constant'."""
        table = {PARAMETER: self.parameters, BUFFER: self.buffers, CONSTANT: self.constants}[node.op]
        return table[node.parameter or ""]

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def run(
        self,
        inputs: Sequence[Any],
        rule: Callable[[Node, tuple[Any, ...], dict[str, Any]], Any],
        hold: Callable[[Node], Any] | None = None,
    ) -> list[Any]:
        """Walk the nodes once; the values of the outputs.

        rule(node, args, kwargs) gives a node's value from those of its arguments (`node.target(*args, **kwargs)`
        computes it as the network would); hold(node) gives that of a held tensor, default the tensor itself.
        Values are dropped after their last use.
        """
        hold = hold or self.held
        values: dict[Node, Any] = {}
        last = {source: node for node in self.nodes for source in node.inputs}
        keep = set(self.outputs)
        fed = iter(inputs)
        for node in self.nodes:
            if node.op == INPUT:
                values[node] = next(fed)
            elif node.op in HELD:
                values[node] = hold(node)
            else:
                args = replace(node.args, values.__getitem__)
                kwargs = {k: replace(v, values.__getitem__) for k, v in node.kwargs.items()}
                values[node] = rule(node, args, kwargs)
            for source in node.inputs:
                if last[source] is node and source not in keep:
                    values.pop(source, None)
        return [values[node] for node in self.outputs]
