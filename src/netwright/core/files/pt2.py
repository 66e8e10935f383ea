"""Read an exported program (.pt2) as a plain, trainable module.

torch.export writes every step as an ATen operator and freezes the mode: batch norm and dropout stay in evaluation
mode for good. Here the steps that are layers become layers again, under the names that their weights have, so that
`train()` and `eval()` work, and places have names.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from netwright.core.errors import BadInput
from netwright.core.files.facts import describe
from netwright.core.files.pt2_safety import suspicion
from netwright.core.quiet import quiet
from netwright.core.signature import SIGNATURE

_CONVOLUTIONS: dict[str, Any] = {
    "aten.conv1d.default": nn.Conv1d, "aten.conv2d.default": nn.Conv2d, "aten.conv3d.default": nn.Conv3d,
}  # fmt: skip
_FRESH = {
    "aten.zeros.default", "aten.ones.default", "aten.full.default", "aten.arange.default", "aten.arange.start",
    "aten.arange.start_step", "aten.scalar_tensor.default",
}  # fmt: skip
_BATCH_NORMS: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def read_pt2(path: Path, trust_pickle: bool = False) -> fx.GraphModule:
    """A module in evaluation mode with the program's own parameter names; BadInput for what is no such file.

    An archive that could run code is refused unless trust_pickle.
    """
    content = path.read_bytes()
    try:
        with quiet():
            found = suspicion(content)
    except Exception:
        raise BadInput(f"{path} is no exported program (.pt2), or only a part of one") from None
    if found and not trust_pickle:
        raise BadInput(
            f"{path} holds {found}, which could run code when loaded. If you trust it: --trust-pickle. "
            "Better: export it again with torch.export.save from plain tensors."
        )
    facts = {"netwright": "", SIGNATURE: ""}
    try:
        with quiet():
            program = torch.export.load(io.BytesIO(content), extra_files=facts)
            raw = program.module(check_guards=False)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise BadInput(f"{path}: this exported program cannot be loaded here ({reason})") from error
    inputs, batch = _inputs(program)
    network = _rebuild(raw)
    signed = {"signature": facts[SIGNATURE]} if facts[SIGNATURE] else {}
    describe(network, {"inputs": inputs, "batch": batch, **_facts(facts["netwright"]), **signed})
    return network.eval()


def _facts(text: str | bytes) -> dict[str, str]:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _inputs(
    program: torch.export.ExportedProgram,
) -> tuple[list[tuple[str, tuple[int | None, ...]]], int | None]:
    """Names and shapes of the inputs without the batch, and the batch if it is fixed."""
    named = set(program.graph_signature.user_inputs)
    found: list[tuple[str, tuple[int | None, ...]]] = []
    batch: int | None = None
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and node.name in named and isinstance(value, Tensor):
            sizes: tuple[int | None, ...] = tuple(s if isinstance(s, int) else None for s in value.shape)
            found.append((node.name, sizes[1:]))
            batch = sizes[0] if sizes else batch
    return found, batch


def _rebuild(raw: fx.GraphModule) -> fx.GraphModule:
    """The graph with plain inputs and outputs, and layers where the steps are layers."""
    graph = raw.graph
    graph.set_codegen(fx.graph.CodeGen())
    returned = graph.output_node()
    values = returned.args[0]
    if isinstance(values, (tuple, list)) and len(values) == 1:
        returned.args = (values[0],)
    for node in list(graph.nodes):
        if "_assert" in str(node.target) or str(node.target) == "_guards_fn":
            graph.erase_node(node)
            continue
        if str(node.target) in _FRESH:
            _renew(graph, node)
        rule = _LAYERS.get(str(node.target)) if node.op == "call_function" else None
        layer = rule(raw, node) if rule else None
        if layer is not None:
            _replace(raw, node, layer)
    graph.eliminate_dead_code()
    graph.lint()
    return fx.GraphModule(raw, graph, "Network")


def fresh(kind: str, like: Tensor, *args: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A new tensor (zeros, full, arange, ...) where `like` lives; the program would make it where it was traced."""
    return getattr(torch, kind)(*args, dtype=dtype, device=like.device)


def _renew(graph: fx.Graph, node: fx.Node) -> None:
    first = next(n for n in graph.nodes if n.op == "placeholder")
    node.args = (str(node.target).split(".")[1], first, *node.args)
    node.kwargs = {"dtype": node.kwargs["dtype"]} if "dtype" in node.kwargs else {}
    node.target = fresh
    node.meta["is_wrapped"] = True  # kept whole when the network is unpickled


def _replace(raw: fx.GraphModule, node: fx.Node, layer: nn.Module) -> None:
    """Put the layer where its weight stands, or under its own name if it has none, and call it."""
    path = _place(raw, node, layer)
    with node.graph.inserting_before(node):
        call = node.graph.call_module(path, (node.args[0],))
    call.meta = node.meta
    node.replace_all_uses_with(call)
    node.graph.erase_node(node)


def _place(raw: fx.GraphModule, node: fx.Node, layer: nn.Module) -> str:
    held = [a.target for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr"]
    if held:
        path = str(held[0]).rpartition(".")[0]
        there = raw.get_submodule(path) if path else raw
        names = {name for name, _ in (*layer.named_parameters(), *layer.named_buffers())}
        own = {name for name, _ in (*there.named_parameters(), *there.named_buffers())}
        if path and own <= names | {"num_batches_tracked"}:
            if type(there) is type(layer):
                return path  # the same layer, called once more
            raw.set_submodule(path, layer)
            return path
    stem = _own_name(node) or str(node.name)
    path, attempt = stem, 0
    while _taken(raw, path):
        attempt += 1
        path = f"{stem}_{attempt}"
    raw.add_submodule(path, layer)
    return path


def _own_name(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    name = stack[-1][0] if stack else ""
    return (
        name
        if isinstance(name, str) and all(p.isidentifier() or p.isdigit() for p in name.split("."))
        else ""
    )


def _taken(raw: nn.Module, path: str) -> bool:
    place: Any = raw
    for part in path.split("."):
        if not hasattr(place, part):
            return not isinstance(place, nn.Module)
        place = getattr(place, part)
    return True


def _tensor(raw: fx.GraphModule, value: Any) -> Any:
    """The tensor behind an argument; a missing one is None."""
    if value is None:
        return None
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return NotImplemented  # computed: no layer
    owner, _, name = str(value.target).rpartition(".")
    return getattr(raw.get_submodule(owner), name)


def _arguments(node: fx.Node, *defaults: Any) -> list[Any]:
    """Positional arguments after the input, completed by the operator's defaults."""
    given = list(node.args[1:])
    return given + list(defaults[len(given) :])


def _fill(layer: nn.Module, raw: fx.GraphModule, **nodes: Any) -> nn.Module | None:
    """The layer with these tensors; None if one of them is computed."""
    tensors = {name: _tensor(raw, value) for name, value in nodes.items()}
    if any(t is NotImplemented for t in tensors.values()):
        return None
    for name, tensor in tensors.items():
        if tensor is not None and name in layer._parameters and not isinstance(tensor, nn.Parameter):
            return None
        setattr(layer, name, tensor)
    return layer


def _linear(raw: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    weight, bias = _arguments(node, None, None)
    tensor = _tensor(raw, weight)
    if tensor is NotImplemented:
        return None
    layer = nn.Linear(tensor.shape[1], tensor.shape[0], bias is not None, device="meta")
    return _fill(layer, raw, weight=weight, bias=bias)


def _convolution(raw: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    weight, bias, stride, padding, dilation, groups = _arguments(node, None, None, 1, 0, 1, 1)
    tensor = _tensor(raw, weight)
    if tensor is NotImplemented or isinstance(padding, str):
        return None
    rank = tensor.dim() - 2
    each = lambda v: tuple(v) * (rank if len(v) == 1 else 1) if isinstance(v, (list, tuple)) else v
    layer = _CONVOLUTIONS[str(node.target)](
        tensor.shape[1] * groups, tensor.shape[0], tuple(tensor.shape[2:]), each(stride), each(padding),
        each(dilation), groups, bias is not None, device="meta",
    )  # fmt: skip
    return _fill(layer, raw, weight=weight, bias=bias)


def _batch_norm(raw: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    weight, bias, mean, var, _training, momentum, eps, _ = _arguments(node, *[None] * 8)
    source: Any = node.args[0]
    size = _tensor(raw, mean)
    if not isinstance(size, Tensor) or source.meta["val"].dim() not in _BATCH_NORMS:
        return None
    kind = _BATCH_NORMS[source.meta["val"].dim()]
    layer = kind(size.shape[0], eps, momentum, affine=weight is not None)
    return _fill(layer, raw, weight=weight, bias=bias, running_mean=mean, running_var=var)


def _layer_norm(raw: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    shape, weight, bias, eps, _ = _arguments(node, None, None, None, 1e-5, True)
    layer = nn.LayerNorm(list(shape), eps, weight is not None, bias is not None)
    return _fill(layer, raw, weight=weight, bias=bias)


def _activation(kind: type[nn.Module]) -> Callable[[fx.GraphModule, fx.Node], nn.Module | None]:
    return lambda raw, node: kind() if len(node.args) == 1 and not node.kwargs else None


_LAYERS: dict[str, Callable[[fx.GraphModule, fx.Node], nn.Module | None]] = {
    "aten.linear.default": _linear,
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.dropout.default": lambda raw, node: nn.Dropout(_arguments(node, 0.5)[0]),
    "aten.relu.default": _activation(nn.ReLU),
    "aten.relu_.default": lambda raw, node: nn.ReLU(inplace=True),
    "aten.gelu.default": _activation(nn.GELU),
    "aten.hardswish.default": _activation(nn.Hardswish),
    "aten.silu.default": _activation(nn.SiLU),
}
