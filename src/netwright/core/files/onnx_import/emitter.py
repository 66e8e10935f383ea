"""Writes the network while the ONNX graph is read: steps, layers, parameters; and tries each step as it goes."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from netwright.core.files.onnx_import.functions import stack_sizes
from netwright.core.files.onnx_import.values import Const, Size, Value


class Emitter:
    """A graph being written.

    Each step is run at once on two batch sizes with tensors that have a shape but no numbers; so every value's
    rank and sizes are known, and which of them depend on the batch. Steps on constants alone are computed.

    static: no size of the file's varies but the batch, so sizes that do not depend on it are plain integers.
    batch: the batch size that the file fixes, where it does and the network shall take any; else None.
    """

    def __init__(self, static: bool, batch: int | None, probe_batches: tuple[int, ...]) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.static, self.batch, self.probe_batches = static, batch, probe_batches
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.scope = ""
        self.inputs: list[Value] = []
        self._held: dict[Any, fx.Node] = {}
        self._parameters: dict[Any, nn.Parameter] = {}
        self._alive: list[Const] = []

    def input(self, name: str, shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype) -> Value:
        node = self.graph.placeholder(self._identifier(name))
        with self.fake:
            value = Value(node, tuple(torch.empty(shape, dtype=dtype) for shape in shapes))
        self.inputs.append(value)
        return value

    @property
    def first(self) -> Value:
        """The network's first input: new tensors are made where it lives."""
        return self.inputs[0]

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """function(*args, **kwargs) as a step: a Value, a Size, or a list of them for several results."""
        if not _any(self._is_computed, (args, kwargs)):
            with torch.no_grad():
                made = function(*_map(_plain, args), **_map(_plain, kwargs))
            return self._constants(made, (args, kwargs))
        args, kwargs = _map(self._no_sizes, args), _map(self._no_sizes, kwargs)
        node = self.graph.call_function(function, _map(self.node, args), _map(self.node, kwargs))
        if function.__module__ == stack_sizes.__module__:
            node.meta["is_wrapped"] = True  # kept whole when the network is unpickled
        return self._try(node, function, args, kwargs)

    def method(self, name: str, value: Value | Const, *args: Any) -> Any:
        """value.name(*args) as a step."""
        if isinstance(value, Const) and not _any(self._is_computed, args):
            return self._constants(getattr(value.tensor, name)(*_map(_plain, args)), (value, args))
        node = self.graph.call_method(name, _map(self.node, (value, *args)))
        return self._try(node, lambda x, *rest: getattr(x, name)(*rest), (value, *args), {})

    def module(self, module: nn.Module, *inputs: Any, name: str = "") -> Any:
        """A layer, named after its weight or the ONNX node; on constants it is computed."""
        if not _any(self._is_computed, inputs):
            with torch.no_grad():
                return self._constants(module.eval()(*_map(_plain, inputs)), inputs)
        path = self._path(name or self.scope or type(module).__name__)
        self._place(path, module)
        module.eval()
        node = self.graph.call_module(path, _map(self.node, inputs))
        return self._try(node, module, inputs, {})

    def size(self, value: Value | Const, axis: int) -> Any:
        """One size: an integer where it is known for good."""
        if isinstance(value, Const):
            return value.shape[axis]
        axis = axis % value.dim
        if self.static and not value.varies(axis):
            return value.shape[axis]
        return self.method("size", value, axis)

    def sizes(self, value: Value | Const) -> list[Any]:
        return [self.size(value, axis) for axis in range(value.dim)]

    def parameter(self, const: Const, axes: tuple[int, ...] | None = None) -> nn.Parameter:
        """The weight as a layer's parameter; the same one for each use of it.

        But exporters merge equal tensors, such as biases that are all zero still: these are not shared weights.
        """
        moved = const.permute(axes) if axes else const
        if moved.dim == 1 and len(moved.tensor) > 1 and bool((moved.tensor == moved.tensor[0]).all()):
            return nn.Parameter(moved.tensor.clone())
        key = (moved.name, moved.axes) if moved.name else id(const)
        if key not in self._parameters:
            self._parameters[key] = nn.Parameter(moved.tensor.clone())
            self._alive.append(const)
        return self._parameters[key]

    def node(self, value: Any) -> Any:
        """How a step names its argument."""
        if isinstance(value, (Value, Size)):
            return value.node
        return self._hold(value) if isinstance(value, Const) else value

    def tensor(self, sizes: np.ndarray) -> Any:
        """Sizes as an integer tensor."""
        return self.call(stack_sizes, self.first, sizes.ravel().tolist(), list(sizes.shape))

    def _hold(self, const: Const) -> fx.Node:
        """A constant as an attribute of the network: a parameter if it is a weight, else a buffer."""
        trained = const.weight and const.dim > 0 and const.tensor.is_floating_point()
        key = (const.name, const.axes, trained) if const.name else id(const)
        if key not in self._held:
            path = self._path(const.path or const.name or "constant")
            self._place(path, self.parameter(const) if trained else const.tensor.clone())
            with self.graph.inserting_before(self._first()):
                self._held[key] = self.graph.get_attr(path)
            self._alive.append(const)  # the key may be its id
        return self._held[key]

    def _first(self) -> fx.Node:
        for node in self.graph.nodes:
            if node.op != "placeholder":
                return node
        return self.graph._root  # an empty graph: at its end

    def _try(self, node: fx.Node, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        count = max(len(v.probes) for v in _leaves((args, kwargs)) if isinstance(v, (Value, Size)))
        made = []
        for i in range(count):
            pick = lambda v, i=i: v.probes[i] if isinstance(v, (Value, Size)) else _plain(v)
            with self.fake, torch.no_grad():
                made.append(function(*_map(pick, args), **_map(pick, kwargs)))
        result = self._wrap(node, tuple(made))
        if isinstance(result, Value) and (sizes := result.batch_sizes()):
            sources = (v for v in _leaves((args, kwargs)) if isinstance(v, Value))
            result.outer = next((v.outer for v in sources if v.batch_sizes() == sizes), 1)
        return result

    def _wrap(self, node: fx.Node, made: tuple[Any, ...]) -> Any:
        if isinstance(made[0], Tensor):
            return Value(node, made)
        if isinstance(made[0], (tuple, list)):
            parts = zip(*made, strict=True)
            return [
                self._wrap(self.graph.call_function(operator.getitem, (node, i)), p)
                for i, p in enumerate(parts)
            ]
        if self.static and len(set(made)) == 1:
            return made[0]
        return Size(self.call, node, made)

    def _constants(self, made: Any, sources: Any) -> Any:
        if isinstance(made, Tensor):
            weight = any(v.weight for v in _leaves(sources) if isinstance(v, Const))
            return Const(made, weight=weight, path=self.scope)
        if isinstance(made, (tuple, list)):
            return [self._constants(m, sources) for m in made]
        return made

    def _is_computed(self, value: Any) -> bool:
        if isinstance(value, np.ndarray):
            return any(isinstance(v, Size) for v in value.ravel())
        return isinstance(value, (Value, Size))

    def _no_sizes(self, value: Any) -> Any:
        return self.tensor(value) if isinstance(value, np.ndarray) else value

    def _identifier(self, text: str) -> str:
        cleaned = re.sub(r"\W+", "_", text).strip("_") or "value"
        return f"_{cleaned}" if cleaned[0].isdigit() else cleaned

    def _path(self, name: str) -> str:
        """A free place in the tree of modules, near the name: 'layer1.0.conv' stays so where it can."""
        parts = [re.sub(r"\W+", "_", p).strip("_") for p in re.split(r"[./]+", name.strip("./"))]
        wanted = [p for p in parts if p] or ["step"]
        for attempt in range(10**6):
            if attempt == 1 and not self._free(".".join([*wanted[:-1], "free_place"])):
                wanted = ["_".join(wanted)]  # a layer or a parameter stands where a folder should be
            path = ".".join(wanted) + (f"_{attempt}" if attempt else "")
            if self._free(path):
                return path
        raise AssertionError("no free name")

    def _free(self, path: str) -> bool:
        """Nothing is there yet, and what is above are plain folders."""
        *above, last = path.split(".")
        place: Any = self.root
        for part in above:
            if type(place) is not nn.Module or (hasattr(place, part) and part not in place._modules):
                return False
            if part not in place._modules:
                return True
            place = place._modules[part]
        return type(place) is nn.Module and not hasattr(place, last)

    def _place(self, path: str, thing: nn.Module | Tensor) -> None:
        *above, last = path.split(".")
        place = self.root
        for part in above:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place._modules[part]  # type: ignore[assignment]
        if isinstance(thing, nn.Module):
            place.add_module(last, thing)
        elif isinstance(thing, nn.Parameter):
            place.register_parameter(last, thing)
        else:
            place.register_buffer(last, thing)


def _plain(value: Any) -> Any:
    if isinstance(value, Const):
        return value.tensor
    return torch.tensor(value.tolist()) if isinstance(value, np.ndarray) else value


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_map(function, v) for v in value)
    if isinstance(value, dict):
        return {k: _map(function, v) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(function(value.start), function(value.stop), function(value.step))
    return function(value)


def _leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    _map(lambda v: found.append(v), value)
    return found


def _any(test: Callable[[Any], bool], value: Any) -> bool:
    return any(test(v) for v in _leaves(value))
