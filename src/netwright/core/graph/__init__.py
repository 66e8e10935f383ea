"""The traced network, and what follows from it: which slices move together, and a smaller network."""

from netwright.core.graph.groups import Dependencies, Group, Slice, dependencies, groups
from netwright.core.graph.ir import Graph, Node
from netwright.core.graph.prune import mask, prune, reorder
from netwright.core.graph.trace import trace

__all__ = [
    "Dependencies",
    "Graph",
    "Group",
    "Node",
    "Slice",
    "dependencies",
    "groups",
    "mask",
    "prune",
    "reorder",
    "trace",
]
