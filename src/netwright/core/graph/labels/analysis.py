"""The state of an analysis: the labels of a graph's activations, and what could not be followed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from netwright.core.graph.ir import Graph, Node
from netwright.core.graph.labels.classes import Classes
from netwright.core.graph.labels.values import Held, Table, fixed, flat


@dataclass(eq=False)
class Analysis:
    """The labels of a graph, and how its operators see them."""

    graph: Graph
    classes: Classes = field(default_factory=Classes)
    inexact: list[Tensor] = field(default_factory=list)
    unknown_operators: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table = Table(self.classes)
        self.values: dict[Node, Any] = {}

    def labels(self, value: Any) -> Tensor:
        """Labels of an activation; a held tensor becomes one."""
        return self.table.labels(value) if isinstance(value, Held) else value

    def content(self, held: Held) -> Tensor:
        """The numbers in a held tensor (look-up tables)."""
        for table in (self.graph.parameters, self.graph.buffers, self.graph.constants):
            if held.name in table:
                return table[held.name].flatten().cpu()[held.positions()]
        raise KeyError(held.name)

    def because(self, node: Node, what: str) -> str:
        return f"'{node.name}' ({node.op}) {what}"

    def unknown(self, node: Node, args: Any, kwargs: dict[str, Any], what: str = "is not known") -> Any:
        """Whatever touches an operator that we cannot follow keeps its shape."""
        because = self.because(node, what)
        self.unknown_operators[node.name] = because
        for value in flat((*args, *kwargs.values())):
            if isinstance(value, Held):
                self.table.refuse(value, because)
            elif isinstance(value, Tensor):
                self.classes.fix(value, because)
        parts = {user.args[1]: user for user in node.users if user.op == "operator.getitem"}
        if parts and not node.shape:
            return [fixed(parts[i]) if i in parts else None for i in range(max(parts) + 1)]
        return fixed(node)
