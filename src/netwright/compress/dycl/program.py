"""The program that is being written: values known by shape and type alone, and blocks of recorded operations."""

from __future__ import annotations

import operator
import re
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from netwright.core.errors import NotApplicable


@dataclass(eq=False)
class Value:
    """A tensor of the program. fake: its shape and type. number: it stands for a Python number, in 64 bits.

    attribute: the network's own tensor of this name. named: as the source's variable that held it first.
    """

    name: str
    fake: Tensor
    number: bool = False
    attribute: str = ""
    named: bool = False

    @property
    def storage(self) -> int:
        """Equal for values that are views of one another."""
        return self.fake.untyped_storage()._cdata


class Local(list):
    """A list that the method itself has made, so that it may change it."""


class LocalDict(dict):
    """A dictionary that the method itself has made."""


class Method(NamedTuple):
    """A method of a tensor, or of a list or dictionary that may hold some, before it is called."""

    owner: Any
    name: str


@dataclass(eq=False)
class Closure:
    """A lambda: its source, and where in the flow's frames the variables are that it was made among."""

    node: Any
    source: Any
    frame: int


@dataclass(eq=False)
class Decide:
    """A block's end: on the truth of a value."""

    test: Value
    yes: Block
    no: Block


@dataclass(eq=False)
class Goto:
    to: Block


@dataclass(eq=False)
class Result:
    value: Any


@dataclass(eq=False)
class Raise:
    message: str


@dataclass(eq=False)
class Block:
    """Operations in a row, then a decision: the graph's nodes, by value; and values renamed at the end.

    A node with meta 'writer' is a copy that another node changes in place.
    """

    name: str
    line: str
    graph: fx.Graph = field(default_factory=fx.Graph)
    nodes: dict[Value, fx.Node] = field(default_factory=dict)
    reads: dict[Value, fx.Node] = field(default_factory=dict)
    moves: list[tuple[Value, Value]] = field(default_factory=list)
    end: Decide | Goto | Result | Raise | None = None

    def node(self, value: Value) -> fx.Node:
        """The value in this block's graph: made here, or read."""
        if value not in self.nodes:
            if value.attribute:
                made = self.graph.create_node("get_attr", value.attribute)
            else:
                made = self.reads[value] = self.graph.placeholder(f"read_{len(self.reads)}")
            self.nodes[value] = made
        return self.nodes[value]


def mapped(thing: Any, leaf: Callable[[Value], Any], memo: dict[int, Any] | None = None) -> Any:
    """The same structure with every value replaced. Lists and dictionaries of the method stay shared as they were."""
    memo = {} if memo is None else memo
    if isinstance(thing, Value):
        return leaf(thing)
    if id(thing) in memo:
        return memo[id(thing)]
    if isinstance(thing, Local):
        items = memo[id(thing)] = Local()
        items.extend(mapped(item, leaf, memo) for item in thing)
        return items
    if isinstance(thing, LocalDict):
        made = memo[id(thing)] = LocalDict()
        made.update((name, mapped(item, leaf, memo)) for name, item in thing.items())
        return made
    if isinstance(thing, slice):
        return slice(*(mapped(part, leaf, memo) for part in (thing.start, thing.stop, thing.step)))
    if isinstance(thing, tuple) and not isinstance(thing, torch.Size):
        items = [mapped(item, leaf, memo) for item in thing]
        return type(thing)(*items) if hasattr(thing, "_fields") else tuple(items)
    return thing


def values_in(thing: Any, seen: set[int] | None = None) -> Iterator[Value]:
    """Every place that holds a value, in the order of `mapped`."""
    seen = set() if seen is None else seen
    if isinstance(thing, Value):
        yield thing
    elif isinstance(thing, (Local, LocalDict)):
        if id(thing) not in seen:
            seen.add(id(thing))
            for item in thing if isinstance(thing, Local) else thing.values():
                yield from values_in(item, seen)
    elif isinstance(thing, slice):
        yield from values_in((thing.start, thing.stop, thing.step), seen)
    elif isinstance(thing, tuple):
        for item in thing:
            yield from values_in(item, seen)


def plainly(thing: Any, leaf: Callable[[Value], Any]) -> Any:
    """As `mapped`, with plain lists and dictionaries, as torch's functions want them."""
    if isinstance(thing, Local):
        return [plainly(item, leaf) for item in thing]
    if isinstance(thing, LocalDict):
        return {key: plainly(item, leaf) for key, item in thing.items()}
    if isinstance(thing, tuple) and not isinstance(thing, torch.Size):
        items = [plainly(item, leaf) for item in thing]
        return type(thing)(*items) if hasattr(thing, "_fields") else tuple(items)
    if isinstance(thing, slice):
        return slice(*(plainly(part, leaf) for part in (thing.start, thing.stop, thing.step)))
    return leaf(thing) if isinstance(thing, Value) else thing


@dataclass
class Flow:
    """One way through the method so far: the variables of every call, operands that wait, and where it writes.

    kind: what made it leave the statements around it: '' (nothing), break, continue or return (of `result`).
    """

    frames: list[dict[str, Any]]
    stack: list[Any]
    block: Block
    kind: str = ""
    result: Any = None

    def push(self, thing: Any) -> list[Flow]:
        self.stack.append(thing)
        return [self]

    def pop(self) -> Any:
        return self.stack.pop()

    def take(self, count: int) -> list[Any]:
        """The last so many operands, in order."""
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    @property
    def held(self) -> tuple[Any, ...]:
        frames = (tuple(frame[name] for name in sorted(frame)) for frame in self.frames)
        return (*frames, tuple(self.stack), self.result)

    def replace(self, leaf: Callable[[Value], Value]) -> None:
        memo: dict[int, Any] = {}
        for frame in self.frames:
            for name in frame:
                frame[name] = mapped(frame[name], leaf, memo)
        self.stack = [mapped(item, leaf, memo) for item in self.stack]
        self.result = mapped(self.result, leaf, memo)

    def fork(self, block: Block) -> Flow:
        """The same with lists of its own, writing elsewhere."""
        made = Flow([dict(f) for f in self.frames], list(self.stack), block, self.kind, self.result)
        made.replace(lambda value: value)
        return made


class Recorder:
    """Applies operations to values: finds shapes and types, and writes the operation into the flow's block."""

    def __init__(self, network: nn.Module) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.targets: dict[str, Any] = {}
        self.blocks: list[Block] = []
        self.own: set[int] = set()  # storages of the caller's and the network's tensors
        self._names: Counter[str] = Counter()
        self._paths = {id(m): n for n, m in network.named_modules()}
        tensors = (
            *network.named_parameters(remove_duplicate=False),
            *network.named_buffers(remove_duplicate=False),
        )
        self._paths |= {id(t): n for n, t in tensors}
        self._attributes: dict[int, Value] = {}

    def block(self, line: str) -> Block:
        self.blocks.append(Block(f"b{len(self.blocks)}", line))
        return self.blocks[-1]

    def value(self, hint: str, fake: Tensor, number: bool = False) -> Value:
        return Value(self.name(hint), fake, number)

    def name(self, hint: str) -> str:
        """A name that no other value has."""
        stem = re.sub(r"\W|_\d+$", "", hint) or "v"
        self._names[stem] += 1
        return f"{stem}_{self._names[stem]}"

    def given(self, tensor: Tensor, hint: str) -> Value:
        """One of the method's inputs."""
        value = self.value(hint, self.mode.from_tensor(tensor))
        self.own.add(value.storage)
        return value

    def attribute(self, tensor: Tensor) -> Value:
        """One of the network's own tensors."""
        if id(tensor) not in self._attributes:
            target = self._target(tensor, "constant")
            value = Value(f"self.{target}", self.mode.from_tensor(tensor), attribute=target)
            self.own.add(value.storage)
            self._attributes[id(tensor)] = value
        return self._attributes[id(tensor)]

    def _owned(self, thing: Any) -> Any:
        """Tensors of the network's that stand in lists, as values."""
        if isinstance(thing, Tensor):
            return self.attribute(thing)
        if type(thing) in (list, Local):
            return Local(map(self._owned, thing))
        if type(thing) is tuple:
            return tuple(map(self._owned, thing))
        return {name: self._owned(item) for name, item in thing.items()} if type(thing) is dict else thing

    def _target(self, thing: Any, kind: str) -> str:
        """The name by which the parts hold a module or tensor."""
        path = self._paths.setdefault(id(thing), f"{kind}_{len(self.targets)}")
        self.targets[path] = thing
        return path

    def apply(
        self, flow: Flow, target: Any, args: tuple, kwargs: dict[str, Any], where: str, hint: str = "v"
    ) -> Any:
        """The result of `target`: a function, the name of a tensor's method, or a module.

        What comes out without tensors (a size, a type) is known now; of all else the operation is recorded. A change
        in place is recorded on a copy, which takes the tensor's place in everything that the flow holds.
        """
        args, kwargs = self._owned(args), self._owned(kwargs)
        leaves = list(dict.fromkeys(values_in((args, tuple(kwargs.values())))))
        shapes = {value: value.fake.shape for value in leaves}
        given = plainly((args, LocalDict(kwargs)), lambda value: value.fake)
        out, written = self._tried(target, *given, where)
        changed = [value for value in leaves if value.storage in written]
        if not changed and not any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            return out
        copies = self._copies(flow, changed, shapes, where)
        graph = flow.block.graph
        node_of = lambda value: flow.block.node(copies.get(value, value))
        op, name = "call_function", target
        if isinstance(target, nn.Module):
            op, name = "call_module", self._target(target, "module")
        elif isinstance(target, str):
            op = "call_method"
        node_args, node_kwargs = plainly((args, LocalDict(kwargs)), node_of)
        node = graph.create_node(op, name, node_args, node_kwargs)
        for copy in copies.values():
            flow.block.nodes[copy].meta["writer"] = node
        if copies:
            flow.replace(lambda value: copies.get(value, value))
        same = {_view(value.fake): copies.get(value, value) for value in leaves}
        return self._wrapped(out, node, flow.block, same, hint, where)

    def _tried(self, target: Any, args: tuple, kwargs: dict[str, Any], where: str) -> tuple[Any, set[int]]:
        """What the operation gives, without computing a number, and which storages it writes to."""
        if isinstance(target, str):
            run = getattr(type(args[0]), target, None)
            if run is None:
                raise NotApplicable(f"{where}: tensors have no method '{target}'")
        else:
            run = target
        guard = _Guard(where)
        try:
            with torch.no_grad(), self.mode, guard:
                return run(*args, **kwargs), guard.written
        except NotApplicable:
            raise
        except DataDependentOutputException:
            raise NotApplicable(
                f"{where}: {_called(target)} decides by values inside itself, where it cannot be compiled"
            ) from None
        except DynamicOutputShapeException:
            raise NotApplicable(
                f"{where}: the shape of what {_called(target)} gives depends on values"
            ) from None
        except Exception as error:
            line = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            raise NotApplicable(f"{where}: {line}") from error

    def _copies(
        self, flow: Flow, changed: list[Value], shapes: dict[Value, torch.Size], where: str
    ) -> dict[Value, Value]:
        copies = {}
        for value in changed:
            if value.storage in self.own:
                raise NotApplicable(f"{where}: it changes a tensor of the network's or the caller's in place")
            if value.fake.shape != shapes[value]:
                raise NotApplicable(f"{where}: it changes the shape of a tensor in place")
            if any(other is not value and other.storage == value.storage for other in values_in(flow.held)):
                raise NotApplicable(
                    f"{where}: it changes a tensor in place that is in use by another name, too"
                )
            copy = self.value(value.name, value.fake, value.number)
            source = flow.block.node(value)
            flow.block.nodes[copy] = flow.block.graph.call_method("clone", (source,))
            flow.block.nodes[copy].meta["fake"] = value.fake
            copies[value] = copy
        return copies

    def _wrapped(
        self, out: Any, node: fx.Node, block: Block, same: dict[tuple, Value], hint: str, where: str
    ) -> Any:
        """Values for the tensors in a result, which are the operation's node or items of it."""
        if isinstance(out, Tensor):
            if _view(out) in same:
                return same[_view(out)]
            made = self.value(hint, out)
            node.meta["fake"] = out
            block.nodes[made] = node
            return made
        if isinstance(out, (tuple, list)):
            items = []
            for index, item in enumerate(out):
                inner = (
                    node if not _tensors(item) else block.graph.call_function(operator.getitem, (node, index))
                )
                items.append(self._wrapped(item, inner, block, same, hint, where))
            if hasattr(type(out), "__match_args__") and type(out).__match_args__:
                return namedtuple(type(out).__name__, type(out).__match_args__)(*items)  # type: ignore[misc]
            return tuple(items)
        if isinstance(out, dict):
            return LocalDict(
                (
                    key,
                    self._wrapped(
                        item,
                        block.graph.call_function(operator.getitem, (node, key)),
                        block,
                        same,
                        hint,
                        where,
                    ),
                )
                for key, item in out.items()
            )
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            raise NotApplicable(
                f"{where}: it gives a {type(out).__name__}, which is neither a tensor nor several"
            )
        return out


def _view(fake: Tensor) -> tuple[Any, ...]:
    """Equal for tensors that are the same entries in the same shape."""
    place = fake.untyped_storage()._cdata, fake.storage_offset()
    return (*place, tuple(fake.shape), fake.stride(), fake.dtype, fake.numel() > 0 or id(fake))


def _tensors(thing: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(thing))


def _called(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)


class _Guard(TorchDispatchMode):
    """Notices what is drawn by chance, and what is written to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.written: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [*zip(func._schema.arguments, args, strict=False)]
        given += [(a, kwargs[a.name]) for a in func._schema.arguments if a.name in kwargs]
        if torch.Tag.nondeterministic_seeded in func.tags and not _chanceless(given):
            raise NotApplicable(f"{self.where}: {func.overloadpacket.__name__} draws random numbers")
        for argument, thing in given:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tree_leaves(thing):
                    if isinstance(tensor, Tensor) and not isinstance(tensor, FakeTensor):
                        raise NotApplicable(f"{self.where}: it changes one of the network's own tensors")
                    if isinstance(tensor, Tensor):
                        self.written.add(tensor.untyped_storage()._cdata)
        return func(*args, **kwargs)


def _chanceless(given: list[tuple[Any, Any]]) -> bool:
    """Attention without dropout carries the mark of chance, and has none."""
    return all(value == 0.0 for argument, value in given if argument.name == "dropout_p") and any(
        argument.name in ("query", "dropout_p") for argument, _ in given
    )
