"""A smaller network as a graph module: for forwards that bake in the sizes which pruning changes.

The traced nodes are written out again with new sizes where they name one. Layers stay the modules they were,
under their names; batch normalisation and dropout follow the module's training mode. What a trace in
evaluation mode cannot show is gone: dropout inside attention and recurrent layers, branches on `self.training`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from netwright.core.errors import NotApplicable
from netwright.core.graph.cut import Orders, sliced
from netwright.core.graph.groups import Dependencies, Pattern
from netwright.core.graph.ir import BUFFER, CONSTANT, HELD, INPUT, Node, replace
from netwright.core.graph.labels.rules import CREATING, kind

_aten = torch.ops.aten
_CONVOLUTIONS = tuple(f"{name}{n}d" for name in ("conv", "conv_transpose") for n in (1, 2, 3))
_LEAVES: dict[str, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear,), "embedding": (nn.Embedding,), "layer_norm": (nn.LayerNorm,),
    "group_norm": (nn.GroupNorm,), "prelu": (nn.PReLU,),
    "batch_norm": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    "conv1d": (nn.Conv1d,), "conv2d": (nn.Conv2d,), "conv3d": (nn.Conv3d,),
}  # fmt: skip


class BatchNorm(nn.Module):
    """Batch normalisation by tensors that live elsewhere, following this module's training mode."""

    def __init__(self, momentum: float, eps: float) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None
    ) -> Tensor:
        training = self.training or mean is None
        return F.batch_norm(x, mean, var, weight, bias, training, self.momentum, self.eps)


def create(name: str, *args: Any, **kwargs: Any) -> Tensor:
    """torch's function of that name, which makes a tensor from sizes alone."""
    return getattr(torch, name)(*args, **kwargs)


def lift(small: nn.Module, found: Dependencies, axes: Orders, gone: Tensor) -> fx.GraphModule:
    """The traced graph over the sliced tensors of `small` (which `cut` has made).

    gone: labels of the units that were removed.
    """
    return _Lift(small, found, axes, gone).build()


class _Lift:
    def __init__(self, small: nn.Module, found: Dependencies, axes: Orders, gone: Tensor) -> None:
        self.small, self.found, self.axes, self.gone = small, found, axes, gone
        self.source = found.graph
        self.graph = fx.Graph()
        self.values: dict[Node, Any] = {}
        self.modules = dict(small.named_modules())

    def build(self) -> fx.GraphModule:
        for node in self.source.nodes:
            if node.op == INPUT:
                self.values[node] = self.graph.placeholder(node.name)
            elif node.op in HELD:
                self.values[node] = self._hold(node)
        for node in self.source.nodes:
            if node.op != INPUT and node.op not in HELD and not node.op.startswith("aten._assert"):
                self.values[node] = self._emit(node)
        self.graph.output(self._outputs())
        module = fx.GraphModule(self.small, self.graph, type(self.small).__name__)
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        module.training = self.small.training
        return module

    def _outputs(self) -> Any:
        program = self.source.program
        flat = program.graph.output_node().args[0]
        if len(program.graph_signature.user_outputs) != len(flat):
            raise NotApplicable("this network writes to its own buffers as it runs")
        given = iter(self.source.outputs)
        leaves = [self.values[next(given)] if isinstance(raw, fx.Node) else raw for raw in flat]
        return pytree.tree_unflatten(leaves, program.call_spec.out_spec)

    def _hold(self, node: Node) -> fx.Node:
        name = node.parameter or ""
        if node.op == CONSTANT and name not in dict(self.small.named_buffers()):
            self.small.register_buffer(
                name := "constant_" + name.replace(".", "_"),
                sliced(self.source.held(node).detach(), node.parameter or "", self.axes),
            )
        assert node.op != BUFFER or name
        return self.graph.get_attr(name)

    def _emit(self, node: Node) -> Any:
        args, kwargs = self._resized(node)
        target = node.target
        if isinstance(args, _Instead):
            target, args = args.target, args.args
        args = replace(args, self.values.__getitem__)
        kwargs = {k: replace(v, self.values.__getitem__) for k, v in kwargs.items()}
        module = self._module(node, args)
        if module is not None:
            name, inputs = module
            return self.graph.call_module(name, inputs)
        assert target is not None
        if kind(node) in CREATING and not kind(node).startswith("new_"):
            made = self.graph.call_function(create, (kind(node), *args), kwargs)
            made.meta["is_wrapped"] = True  # kept whole when the network is unpickled
            return made
        return self.graph.call_function(target, args, kwargs)

    def _module(self, node: Node, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]] | None:
        """The module that does this node's work, if one does, and its inputs."""
        name, operator = node.module or "", kind(node)
        module = self.modules.get(name)
        if operator in ("dropout", "feature_dropout"):
            kinds = (nn.Dropout,) if operator == "dropout" else (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
            if type(module) not in kinds:
                name = f"{node.name}_"
                self._add(name, kinds[len(node.shape) - 3 if len(kinds) > 1 else 0](args[1]))
            return name, (args[0],)
        if type(module) in _LEAVES.get(operator, ()) and self._does(name, module, node):
            return name, (args[0] if operator != "embedding" else args[1],)
        if operator == "batch_norm":
            name = f"{node.name}_"
            self._add(name, BatchNorm(args[6], args[7]))
            return name, tuple(args[:5])
        return None

    def _add(self, name: str, module: nn.Module) -> None:
        self.small.add_module(name, module.train(self.small.training))

    def _does(self, name: str, module: Any, node: Node) -> bool:
        """Whether calling the module is this node, no more and no less."""
        weight = node.args[0] if kind(node) == "embedding" else next(
            (a for a in node.args[1:] if isinstance(a, Node) and a.op in HELD), None
        )  # fmt: skip
        own = f"{name}.weight" if name else "weight"
        return (
            isinstance(weight, Node)
            and weight.parameter == self.source.aliases.get(own, own)
            and getattr(module, "padding_mode", "zeros") == "zeros"
        )

    # sizes

    def _labels(self, node: Any, dim: int) -> Tensor | None:
        """Labels along a dimension of a node's value, if its units lie there."""
        return self._pattern(node).get(dim % len(node.shape)) if isinstance(node, Node) else None

    def _pattern(self, node: Any) -> Pattern:
        return self.found.patterns.get(node, {})

    def _count(self, labels: Tensor) -> int:
        return int((~torch.isin(labels, self.gone)).sum())

    def _resized(self, node: Node) -> tuple[Any, dict[str, Any]]:
        resize = _RESIZE.get(kind(node))
        return (node.args if resize is None else resize(self, node)), node.kwargs

    def _shape(self, node: Node, sizes: list[Any], first: int = 0) -> list[Any]:
        """A list of sizes, the first of which is dimension `first` of the result, as they are now."""
        new = list(sizes)
        for dim, labels in self._pattern(node).items():
            at = dim - first
            if not 0 <= at < len(new) or new[at] == -1:
                continue
            if not isinstance(new[at], Node):
                new[at] = self._count(labels)
            elif -1 in [s for s in new if isinstance(s, int)]:
                raise NotApplicable(f"'{node.name}' reshapes to two computed sizes")
            else:
                new[at] = -1
        return new

    def view(self, node: Node) -> Any:
        return node.args[0], self._shape(node, list(node.args[1])), *node.args[2:]

    def unflatten(self, node: Node) -> Any:
        x, dim, sizes = node.args[:3]
        return x, dim, self._shape(node, list(sizes), dim % len(x.shape))

    def split(self, node: Node) -> Any:
        x, how = node.args[:2]
        dim = node.args[2] if len(node.args) > 2 else 0
        labels = self._labels(x, dim)
        if labels is None:
            return node.args
        assert node.target is not None
        sizes = [self._count(part) for part in node.target(labels, how, 0)]
        return _Instead(_aten.split_with_sizes.default, (x, sizes, dim))

    def slice(self, node: Node) -> Any:
        filled: tuple[Any, ...] = (*node.args, *(0, None, None, 1)[len(node.args) - 1 :])
        x, dim, start, end, step = filled
        labels = self._labels(x, dim)
        if labels is None:
            return node.args
        chosen = torch.arange(len(labels))[start:end]
        first = self._count(labels[: int(chosen[0])])
        return x, dim, first, first + self._count(labels[chosen]), step

    def select(self, node: Node) -> Any:
        x, dim, index = node.args
        labels = self._labels(x, dim)
        return node.args if labels is None else (x, dim, self._count(labels[: index % len(labels)]))

    def pad(self, node: Node) -> Any:
        amounts = list(node.args[1])
        for dim, labels in self._pattern(node).items():
            at = 2 * (len(node.shape) - 1 - dim)
            if at < len(amounts):
                front, back = amounts[at], amounts[at + 1]
                if front > 0:
                    amounts[at] = self._count(labels[:front])
                if back > 0:
                    amounts[at + 1] = self._count(labels[-back:])
        return node.args[0], amounts, *node.args[2:]

    def layer_norm(self, node: Node) -> Any:
        x, shape = node.args[:2]
        return x, self._shape(x, list(shape), len(x.shape) - len(shape)), *node.args[2:]

    def group_norm(self, node: Node) -> Any:
        x, groups = node.args[:2]
        labels = self._labels(x, 1)
        single = labels is not None and groups == x.shape[1]
        return x, self._count(labels) if single and labels is not None else groups, *node.args[2:]

    def convolution(self, node: Node) -> Any:
        args = node.args
        labels = self._labels(args[0], -len(args[1].shape) + 1)
        if len(args) > 6 and labels is not None and args[6] == len(labels):
            return *args[:6], self._count(labels), *args[7:]
        return args

    def zeros(self, node: Node) -> Any:
        """The first state of a recurrent layer has its hidden size."""
        for user in node.users:
            if kind(user) in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
                recurrent = user.args[2][1].parameter
                order = self.axes.get((recurrent, 1))
                if order is not None:
                    return [*node.args[0][:-1], len(order)], *node.args[1:]
        return node.args


class _Instead:
    """Another operator in a node's place."""

    def __init__(self, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.target, self.args = target, args


_RESIZE: dict[str, Callable[[_Lift, Node], Any]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "expand"), _Lift.view), "unflatten": _Lift.unflatten,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split"), _Lift.split),
    "slice": _Lift.slice, "select": _Lift.select, "constant_pad_nd": _Lift.pad, "pad": _Lift.pad,
    "layer_norm": _Lift.layer_norm, "rms_norm": _Lift.layer_norm, "group_norm": _Lift.group_norm,
    **dict.fromkeys(_CONVOLUTIONS, _Lift.convolution),
    "zeros": _Lift.zeros,
}  # fmt: skip
