"""Files that give a label beside their scores: what is read of them is the scores."""

from __future__ import annotations

import onnx

from netwright.core.files.onnx_import.file import names_read

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


def scores_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same file with its scores as the only output, where they stand beside labels or in a ZipMap."""
    graph = model.graph
    maps = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "ZipMap"}
    found = [maps[v.name] for v in graph.output if v.name in maps]
    if not found:
        kinds = {v.name: v.type.tensor_type.elem_type for v in graph.output}
        floats = [name for name, kind in kinds.items() if kind in _FLOATS]
        found = floats if len(floats) == 1 and len(kinds) > 1 else []
    if len(found) != 1:
        return model
    reduced = onnx.ModelProto()
    reduced.CopyFrom(model)
    del reduced.graph.output[:]
    known = {v.name: v for v in (*graph.output, *graph.value_info)}
    kept = known.get(found[0]) or onnx.helper.make_tensor_value_info(found[0], onnx.TensorProto.FLOAT, None)
    reduced.graph.output.append(kept)
    _prune(reduced.graph)
    return reduced


def _prune(graph: onnx.GraphProto) -> None:
    """Remove the steps and tensors that no output needs."""
    needed = {v.name for v in graph.output}
    live = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            live.append(node)
            needed.update(names_read(node))
    held = [t for t in graph.initializer if t.name in needed]
    del graph.node[:]
    graph.node.extend(reversed(live))
    del graph.initializer[:]
    graph.initializer.extend(held)
