"""The traced network, and what follows from it: which slices move together, and a smaller network."""

from netwright.core.graph.ir import Graph, Node
from netwright.core.graph.trace import trace

__all__ = ["Graph", "Node", "trace"]
