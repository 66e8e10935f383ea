"""An ONNX file, checked before anything is made of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import external_data_helper as external

from netwright.core.errors import BadInput


def parse(path: Path) -> onnx.ModelProto:
    """The network in the file, with tensors that lie in files beside it; functions of the file's own are inlined."""
    model = onnx.ModelProto()
    content = _content(path)
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise BadInput(f"{path} is no ONNX file, or only a part of one") from None
    if not model.graph.node or not model.opset_import:
        raise BadInput(f"{path} is no ONNX file, or only a part of one")
    _attach(model, path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _check(model, path)
    return model


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BadInput(f"{path} is a folder, not an ONNX file") from None
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    if not content:
        raise BadInput(f"{path} is empty")
    return content


def _check(model: onnx.ModelProto, path: Path) -> None:
    """Names that nothing gives, and tensors whose numbers are missing."""
    known = {v.name for v in model.graph.input} | {t.name for t in model.graph.initializer} | {""}
    for node in model.graph.node:
        missing = next((name for name in node.input if name not in known), None)
        if missing is not None:
            raise BadInput(
                f"{path}: node '{node.name or node.op_type}' reads '{missing}', which nothing gives"
            )
        known.update(node.output)
    for value in model.graph.output:
        if value.name not in known:
            raise BadInput(f"{path}: nothing gives the output '{value.name}'")
    for tensor in model.graph.initializer:
        try:
            onnx.checker.check_tensor(tensor)
        except onnx.checker.ValidationError as error:
            reason = str(error).strip().partition("\n")[0]
            raise BadInput(f"{path}: the tensor '{tensor.name}' is damaged ({reason})") from None


def _attach(model: onnx.ModelProto, path: Path) -> None:
    """Read the tensors that lie outside the file, from its own folder only."""
    folder = path.resolve().parent
    for tensor in _tensors(model):
        if not external.uses_external_data(tensor):
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        place = Path(os.path.realpath(folder / location))
        if not location or not place.is_relative_to(folder):
            raise BadInput(f"{path} refers to weights in '{location}', outside its folder; refused")
        if not place.is_file():
            raise BadInput(f"{path} keeps its weights in '{location}', which is not beside it")
        try:
            start = int(entries.get("offset", 0))
            length = int(entries["length"]) if "length" in entries else None
        except ValueError:
            start, length = -1, None
        size = place.stat().st_size
        if start < 0 or (length is not None and (length < 0 or start + length > size)):
            raise BadInput(f"{path}: '{location}' does not hold all of the tensor '{tensor.name}'")
        with place.open("rb") as file:
            file.seek(start)
            tensor.raw_data = file.read() if length is None else file.read(length)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _of_node(node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from _of_graph(graph)


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, what its branches read or hand on among it."""
    yield from node.input
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            for inner in graph.node:
                yield from names_read(inner)
            yield from (value.name for value in graph.output)
