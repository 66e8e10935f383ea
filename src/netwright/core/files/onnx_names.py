"""Other names for the values of an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give values other names, here and in inner graphs. A value that has one of the new names already makes way."""
    names = {old: new for old, new in names.items() if old != new}
    if not names:
        return
    taken = {name for part in _graphs(graph) for name in _used(part)} | set(names.values())
    for new in [n for n in names.values() if n in taken and n not in names]:
        names[new] = next(n for i in range(len(taken) + 1) if (n := f"{new}_{i}") not in taken)
        taken.add(names[new])
    for part in _graphs(graph):
        for value in (*part.input, *part.output, *part.value_info, *part.initializer):
            value.name = names.get(value.name, value.name)
        for node in part.node:
            for field in (node.input, node.output):
                field[:] = [names.get(name, name) for name in field]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """This one and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(inner)


def _used(graph: onnx.GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (*node.input, *node.output)
