"""A network rewritten for 8-bit integers: where values are rounded, and which layers are packed.

Works on the traced, functional graph, so on any network that can be traced: what counts is the operator, not
the module. Roundings stand where ONNX Runtime needs them to run whole stretches in integers: at the inputs of
convolutions and linear layers, behind convolutions (after their ReLU), behind sums and concatenations of
rounded values, and on both sides of operators that only move values (pooling by maximum, reshaping). Averages over
all positions that a layer reads take rounded values too, so that every runtime sums the same codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from netwright.core.errors import NotApplicable
from netwright.core.graph.trace import decomposed, trace
from netwright.core.network import Inputs
from netwright.core.quiet import quiet
from netwright.core.weights.fold import fold
from netwright.core.weights.grids import Uniform
from netwright.core.weights.packed import (
    DynamicLinear,
    PackedConv,
    PackedEmbedding,
    PackedLinear,
    PackedWeight,
    Rounding,
)  # fmt: skip
from netwright.core.weights.parametrise import Quantiser
from netwright.core.weights.straight import Straight, editable

_aten = torch.ops.aten

CONVOLUTIONS = {
    _aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default,
    _aten.conv1d.padding, _aten.conv2d.padding, _aten.conv3d.padding,
}  # fmt: skip
LINEAR = {_aten.linear.default}
_RECURRENT = {
    _aten.lstm.input, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input,
}  # fmt: skip
_EMBEDDING = {_aten.embedding.default}
_MOVES = {
    _aten.max_pool1d.default, _aten.max_pool2d.default, _aten.max_pool3d.default, _aten.view.default,
    _aten.reshape.default, _aten.flatten.using_ints, _aten.transpose.int, _aten.permute.default,
    _aten.squeeze.dim, _aten.squeeze.dims, _aten.unsqueeze.default, _aten.slice.Tensor, _aten.clone.default,
    _aten.contiguous.default, _aten.dropout.default, _aten.alias.default,
}  # fmt: skip
_RECTIFIERS = {
    _aten.relu.default, _aten.relu6.default, _aten.clamp.default, _aten.clamp_min.default,
    _aten.hardtanh.default,
}  # fmt: skip


def functional(network: nn.Module, example: Inputs) -> fx.GraphModule:
    """The network, batch norms folded, as a plain graph module without in-place operators.

    Its tensors keep their names. Raises NotApplicable where it cannot be traced for any batch size.
    """
    folded = fold(network, example)
    traced = trace(folded, example)
    if not traced.dynamic:
        raise NotApplicable("this network can only be traced for one batch size")
    with quiet():
        program = decomposed(traced.program, {})
    plain = editable(program, type(network).__name__)
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    return plain.eval()


def layers(module: fx.GraphModule, kinds: set[Any]) -> Iterator[tuple[fx.Node, Tensor]]:
    """Nodes of these operators whose weight is a tensor that the network holds, with that weight (O, ...)."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in kinds:
            held = [read for read in node.args[1:3] if read is not None]
            if all(read.op == "get_attr" for read in held):
                weight = attribute(module, held[0].target)
                if weight.is_floating_point() and weight.numel() and node.args[0].op != "get_attr":
                    yield node, weight


def attribute(module: nn.Module, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


@dataclass
class Roundings:
    """owned: nodes whose result is rounded for every reader, since an integer kernel makes it. asked: nodes whose
    result is rounded for the integer kernels and `averages` among its readers. tied: node -> node whose grid it shares.
    """

    owned: set[fx.Node] = field(default_factory=set)
    asked: set[fx.Node] = field(default_factory=set)
    averages: set[fx.Node] = field(default_factory=set)
    tied: dict[fx.Node, fx.Node] = field(default_factory=dict)

    def __contains__(self, node: fx.Node) -> bool:
        return node in self.owned or node in self.asked

    def source(self, node: fx.Node) -> fx.Node:
        """The node whose grid this one uses."""
        while node in self.tied:
            node = self.tied[node]
        return node


def place(module: fx.GraphModule) -> Roundings:
    """Where values are rounded, in the order in which the network runs."""
    found = Roundings()
    kernels = {node for node, _ in layers(module, CONVOLUTIONS | LINEAR)}
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        if node in kernels:
            source = node.args[0]
            if source not in found:
                if source.target in _MOVES and source.args[0] in found:
                    found.tied[source] = source.args[0]
                found.asked.add(source)
            if pool := _average_behind(source):
                found.averages.add(pool)
                found.asked.add(pool.args[0])
            last = _after_rectifier(node)
            # a Gemm with a ReLU that nothing rounds would be fused to a float kernel
            if node.target in CONVOLUTIONS or (last is not node and node.meta["val"].dim() == 2):
                found.owned.add(last)
        elif _joins(node) and all(read in found for read in joined(node)):
            found.owned.add(_after_rectifier(node))
        elif node.target in _MOVES and node.args[0] in found.owned:
            found.owned.add(node)
            found.tied[node] = node.args[0]
    return found


def _average_behind(node: fx.Node) -> fx.Node | None:
    """The mean over all positions of (B, C, ...) whose result, at most moved, this is."""
    while node.target in _MOVES:
        node = node.args[0]
    if node.target is not _aten.mean.dim or not isinstance(node.args[0].meta.get("val"), Tensor):
        return None
    rank = node.args[0].meta["val"].dim()
    dims = sorted(d % rank for d in node.args[1])
    return node if rank > 2 and dims == list(range(2, rank)) else None


def _after_rectifier(node: fx.Node) -> fx.Node:
    """A ReLU that alone reads the node belongs to its kernel."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in _RECTIFIERS else node


def _joins(node: fx.Node) -> bool:
    if node.target is _aten.cat.default:
        return True
    return (
        node.target is _aten.add.Tensor
        and not node.kwargs
        and all(isinstance(a, fx.Node) and isinstance(a.meta.get("val"), Tensor) for a in node.args)
    )


def joined(node: fx.Node) -> list[fx.Node]:
    return list(node.args[0]) if node.target is _aten.cat.default else list(node.args)


def insert(module: fx.GraphModule, roundings: Roundings, grids: dict[fx.Node, tuple[float, int]]) -> None:
    """Write the roundings into the graph. grids: scale and zero of every node that is not tied."""
    graph = module.graph
    kernels = {node for node, _ in layers(module, CONVOLUTIONS | LINEAR)}
    rounded: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if node not in roundings:
            continue
        readers = list(node.users)
        scale, zero = grids[roundings.source(node)]
        with graph.inserting_after(_last_placeholder(graph) if node.op == "placeholder" else node):
            name = f"roundings.{node.name}"
            module.add_submodule(name, Rounding(scale, zero))
            rounded[node] = graph.call_module(name, (node,))
        rounded[node].meta = {"val": node.meta.get("val"), "grid": (scale, zero)}
        for reader in readers:
            if (
                node in roundings.owned
                or reader in kernels
                or reader in roundings.averages
                or reader in roundings.owned
                or (roundings.tied.get(reader) is node)
            ):
                reader.replace_input_with(node, rounded[node])


def _last_placeholder(graph: fx.Graph) -> fx.Node:
    return [node for node in graph.nodes if node.op == "placeholder"][-1]


def pack(module: fx.GraphModule, bits: int, static: bool) -> int:
    """Replace layers by packed ones, named after their weights; how many.

    static: inputs of convolutions and linear layers are rounded already (`insert`), so biases become integers
    too. Otherwise linear layers round their inputs as they run, and convolutions compute in float. Embeddings
    and recurrent layers hold 8-bit weights and compute in float either way.
    """
    quantiser = Quantiser(Uniform(bits))
    # a packed layer takes the place of its weight's owner, so all tensors are looked up first
    found = [
        (node, node.args[1].target, weight, _bias(module, node))
        for node, weight in layers(module, CONVOLUTIONS | LINEAR)
    ]
    others = list(tables(module))
    replaced = {node for node, *_ in (*found, *others)}
    read = [n for n in module.graph.nodes if n.op == "get_attr" and n not in replaced]
    names = _Names(module, {n.target for n in read if any(user not in replaced for user in n.users)})
    twins: dict[str, nn.Parameter] = {}

    def put(node: fx.Node, path: str, made: nn.Module, args: tuple[Any, ...]) -> None:
        if path in twins and torch.equal(twins[path], made.weight):
            made.weight = twins[path]  # shared by several layers: kept once
        twins.setdefault(path, made.weight)
        name = names.of(path)
        module.add_submodule(name, made)
        with module.graph.inserting_before(node):
            new = module.graph.call_module(name, args)
        new.meta = {"val": node.meta.get("val")}
        node.replace_all_uses_with(new)
        if node.op != "get_attr":
            module.graph.erase_node(node)

    for node, path, weight, bias in found:
        twin, source = quantiser.to_integer(weight), node.args[0]
        made: PackedConv | PackedLinear | DynamicLinear
        if node.target in CONVOLUTIONS:
            made = PackedConv(twin, weight.shape, bias, tuple(node.args[3:]), integer=static)
        else:
            made = (PackedLinear if static else DynamicLinear)(twin, weight.shape, bias)
        if static and (node.target in CONVOLUTIONS or node.meta["val"].dim() == 2):
            made.pack_bias(source.meta["grid"][0])
        put(node, path, made, (source,))
    for node, path, weight, args in others:
        kind = PackedWeight if node.op == "get_attr" else PackedEmbedding
        put(node, path, kind(quantiser.to_integer(weight), weight.shape, None), args)
    return len(found) + len(others)


def tables(module: fx.GraphModule) -> Iterator[tuple[fx.Node, str, Tensor, tuple[Any, ...]]]:
    """Embeddings, and the matrices that recurrent layers read."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in _EMBEDDING and node.args[0].op == "get_attr":
            yield node, node.args[0].target, attribute(module, node.args[0].target), (node.args[1],)
        if node.op == "get_attr" and node.users and all(user.target in _RECURRENT for user in node.users):
            tensor = attribute(module, node.target)
            if isinstance(tensor, Tensor) and tensor.dim() == 2 and tensor.is_floating_point():
                yield node, node.target, tensor, ()


def _bias(module: fx.GraphModule, node: fx.Node) -> Tensor | None:
    held = node.args[2] if len(node.args) > 2 else None
    return None if held is None else attribute(module, held.target)


class _Names:
    """Names for packed layers: 'stage1.0.conv1' for the weight 'stage1.0.conv1.weight'.

    kept: tensors that something else reads too, as floats; so their owner stays.
    """

    def __init__(self, module: fx.GraphModule, kept: set[str]) -> None:
        self.kept = kept
        self.held = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
        self.given: dict[str, int] = {}

    def of(self, path: str) -> str:
        owner, _, last = path.rpartition(".")
        name = owner if last == "weight" and owner else f"{path}_packed"
        own = {f"{name}.weight", f"{name}.bias"}
        if own & self.kept or any(h.startswith(f"{name}.") and h not in own for h in self.held):
            name = f"{path}_packed"
        self.given[name] = self.given.get(name, 0) + 1
        return name if self.given[name] == 1 else f"{name}_{self.given[name]}"


def finish(module: fx.GraphModule) -> nn.Module:
    """The rewritten network as a plain module, without what is not used any more."""
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    _drop_unused_tensors(module)
    module.graph.lint()
    return Straight(module).eval()


def _drop_unused_tensors(module: fx.GraphModule) -> None:
    called = {node.target for node in module.graph.nodes if node.op == "call_module"}
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name, _ in (*module.named_parameters(remove_duplicate=False), *module.named_buffers()):
        owner, _, last = name.rpartition(".")
        if name not in used and not any(name.startswith(f"{c}.") for c in called):
            delattr(attribute(module, owner) if owner else module, last)
