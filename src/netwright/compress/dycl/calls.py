"""Calls: of tensors' methods and torch's functions, which are recorded; of the network's own code, which is followed;
of Python's functions on what is known, which are computed."""

from __future__ import annotations

import ast
import inspect
import math
import operator
import types
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn

from netwright.compress.dycl import numbers
from netwright.compress.dycl.program import Closure, Flow, Local, LocalDict, Method, Value, values_in
from netwright.compress.dycl.source import source_of
from netwright.compress.dycl.walk import Walk

Run = Callable[..., list[Flow]]

# of things that may hold values, which they only move
_MOVING = {len, tuple, isinstance, range, slice, type}
_KNOWN = {
    abs, all, any, bool, divmod, float, int, max, min, pow, round, set, sorted, str, sum, callable, hash, id, repr,
    issubclass, hasattr, frozenset, torch.device, torch.Size, torch.finfo, torch.iinfo, torch.is_grad_enabled,
    torch.get_default_dtype, torch.is_tensor, torch.is_floating_point, torch.jit.is_scripting, torch.jit.is_tracing,
    torch.compiler.is_compiling, torch.compiler.is_exporting, torch.onnx.is_in_onnx_export,
}  # fmt: skip
_CASTS = {int: int, float: float, bool: bool}
_SPACES = (torch.nn.functional, torch.special, torch.linalg, torch.fft)
_LISTED = ("append", "extend", "insert", "pop", "clear", "reverse", "copy", "index", "count")
_KEYED = ("get", "items", "keys", "values", "pop", "update", "copy", "setdefault", "clear")
UNMADE = "it changes what the method has not made, a side effect that a compiled network has not"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def call(
    walk: Walk, flow: Flow, callee: Any, args: list[Any], kwargs: dict[str, Any], node: ast.AST, run: Run
) -> list[Flow]:
    """Flows with the result on their stacks."""
    if isinstance(callee, Method):
        return flow.push(_method(walk, flow, callee, args, kwargs, node))
    if isinstance(callee, nn.Module):
        return _module(walk, flow, callee, args, kwargs, node, run)
    if isinstance(callee, Closure):
        return _closure(walk, flow, callee, args, kwargs, node, run)
    bound = getattr(callee, "__self__", None)
    if isinstance(bound, nn.Module) and getattr(callee, "__func__", None) is type(bound).forward:
        return _module(walk, flow, bound, args, kwargs, node, run)
    holds = any(True for _ in values_in((tuple(args), tuple(kwargs.values()))))
    if callee is getattr:
        return _getattr(walk, flow, args, node, run)
    if _plain(callee):
        return flow.push(_builtin(walk, flow, callee, args, kwargs, node, holds))
    if _of_torch(callee):
        return flow.push(_torch(walk, flow, callee, args, kwargs, node))
    if isinstance(callee, (types.FunctionType, types.MethodType)) and _root(callee) != "torch":
        return _follow(walk, flow, callee, args, kwargs, node, run)
    if not holds and _harmless(callee):
        try:
            return flow.push(callee(*args, **kwargs))
        except Exception as error:
            raise walk.refuse(node, f"{type(error).__name__}: {error}") from None
    if isinstance(getattr(callee, "__self__", None), (list, dict, set)):
        raise walk.refuse(node, UNMADE)
    name = getattr(callee, "__qualname__", None) or type(callee).__name__
    raise walk.refuse(node, f"a call of {name} cannot be compiled: it is no operation on tensors")


def own(walk: Walk, thing: Any) -> Any:
    """A tensor that is no value of the method's is one of the network's."""
    return walk.recorder.attribute(thing) if isinstance(thing, Tensor) else thing


def attribute(walk: Walk, flow: Flow, name: str, node: ast.AST, run: Run) -> list[Flow]:
    """Of what is on the stack."""
    owner = flow.pop()
    if isinstance(owner, Value):
        if owner.number:
            raise walk.refuse(node, f"'.{name}' of a number that depends on the input cannot be compiled")
        if callable(getattr(Tensor, name, None)):
            return flow.push(Method(owner, name))
        return flow.push(walk.apply(flow, getattr, owner, name, node=node, hint=owner.name))
    if isinstance(owner, (Local, LocalDict)):
        return flow.push(Method(owner, name))
    static = inspect.getattr_static(type(owner), name, None) if isinstance(owner, nn.Module) else None
    if isinstance(static, property) and not type(owner).__module__.startswith("torch."):
        return call(walk, flow, static.fget, [owner], {}, node, run)
    try:
        return flow.push(own(walk, getattr(owner, name)))
    except AttributeError as error:
        raise walk.refuse(node, str(error)) from None


def _root(callee: Any) -> str:
    return (getattr(callee, "__module__", None) or "").partition(".")[0]


def _harmless(callee: Any) -> bool:
    """What changes nothing when called on what is known: mathematics, text, lookups in a module."""
    bound = getattr(callee, "__self__", None)
    if isinstance(bound, nn.Module):
        looks = (
            "children",
            "named_children",
            "modules",
            "named_modules",
            "get_submodule",
            "items",
            "keys",
            "values",
        )
        return getattr(callee, "__name__", "") in looks
    if isinstance(bound, (str, tuple, range, dict, float, int)) and not isinstance(bound, bool):
        return not isinstance(bound, dict) or callee.__name__ in ("get", "items", "keys", "values")
    return bound is math


def _plain(callee: Any) -> bool:
    try:
        return callee in _MOVING | _KNOWN or callee in (list, dict, zip, enumerate, reversed, print)
    except TypeError:
        return False


def _of_torch(callee: Any) -> bool:
    """An operation on tensors of torch, einops or operator."""
    name = getattr(callee, "__name__", "")
    if any(getattr(space, name, None) is callee for space in _SPACES) or _root(callee) in (
        "einops",
        "_operator",
    ):
        return True
    if isinstance(callee, types.BuiltinFunctionType):
        return getattr(torch, name, None) is callee and not name.startswith(("set_", "_"))
    return isinstance(callee, types.FunctionType) and callee.__module__ == "torch.functional"


def _torch(
    walk: Walk, flow: Flow, function: Any, args: list[Any], kwargs: dict[str, Any], node: ast.AST
) -> Any:
    if function in (torch.tensor, torch.as_tensor) and any(True for _ in values_in(tuple(args[:1]))):
        return numbers.as_tensor(walk, flow, args[0], kwargs.get("dtype"), node)
    hint = getattr(function, "__name__", "v")
    return walk.recorder.apply(flow, function, tuple(args), kwargs, walk.where(node), hint)


def _method(
    walk: Walk, flow: Flow, method: Method, args: list[Any], kwargs: dict[str, Any], node: ast.AST
) -> Any:
    owner, name = method
    if isinstance(owner, Value):
        if name == "item":
            return numbers.number(walk, flow, owner, node)
        if name in ("tolist", "numpy", "backward", "register_hook", "requires_grad_"):
            raise walk.refuse(node, f"'.{name}()' of what depends on the input cannot be compiled")
        return walk.recorder.apply(flow, name, (owner, *args), kwargs, walk.where(node), owner.name)
    allowed = _LISTED if isinstance(owner, Local) else _KEYED
    if name not in allowed:
        raise walk.refuse(
            node, f"'.{name}' of a {'list' if isinstance(owner, Local) else 'dictionary'} cannot be compiled"
        )
    if name in ("index", "count") and any(True for _ in values_in((owner, tuple(args)))):
        raise walk.refuse(node, "a search for what depends on the input cannot be compiled")
    try:
        made = getattr(owner, name)(*args, **kwargs)
    except (LookupError, TypeError, ValueError) as error:
        raise walk.refuse(node, f"{type(error).__name__}: {error}") from None
    if name == "copy":
        return type(owner)(made)
    return tuple(made) if name in ("items", "keys", "values") else made


def _getattr(walk: Walk, flow: Flow, args: list[Any], node: ast.AST, run: Run) -> list[Flow]:
    owner, name = args[:2]
    if len(args) == 3 and not isinstance(owner, (Value, Local, LocalDict)) and not hasattr(owner, name):
        return flow.push(args[2])
    flow.push(owner)
    return attribute(walk, flow, name, node, run)


def _builtin(
    walk: Walk, flow: Flow, callee: Any, args: list[Any], kwargs: dict[str, Any], node: ast.AST, holds: bool
) -> Any:
    if callee is print:
        raise walk.refuse(node, "it prints, and a compiled network would not")
    if callee in (list, dict, zip, enumerate, reversed, tuple):
        given = [items(walk, arg, node) if not isinstance(arg, (int, dict)) else arg for arg in args]
        kind: Any = {list: Local, dict: LocalDict}.get(callee, tuple)
        return kind(*given, **kwargs) if callee in (list, dict, tuple) else tuple(callee(*given, **kwargs))
    if not holds:
        try:
            made = callee(*args, **kwargs)
        except Exception as error:
            raise walk.refuse(node, f"{type(error).__name__}: {error}") from None
        return Local(made) if callee is sorted else made
    first = args[0]
    if callee in _CASTS and isinstance(first, Value):
        return numbers.number(walk, flow, first, node, _CASTS[callee])
    if callee is len:
        return len(first.fake) if isinstance(first, Value) else len(first)
    if callee is isinstance:
        return _is(first, args[1])
    if callee is range:
        raise walk.refuse(
            node,
            "how often this loop turns depends on the input; give it a fixed bound, and leave it with a break",
        )
    if callee is abs:
        return numbers.unary(walk, flow, operator.abs, first, node)
    if callee is sum:
        start = args[1] if len(args) > 1 else 0
        return reduce(lambda a, b: _sum(walk, flow, a, b, node), items(walk, first, node), start)
    if callee in (torch.is_tensor, torch.is_floating_point) and isinstance(first, Value):
        return callee(first.fake) and not first.number
    raise walk.refuse(node, f"{callee.__name__}() of what depends on the input cannot be compiled")


def _sum(walk: Walk, flow: Flow, left: Any, right: Any, node: ast.AST) -> Any:
    if isinstance(left, Value) or isinstance(right, Value):
        return numbers.combine(walk, flow, operator.add, left, right, node)
    return left + right


def _is(thing: Any, kinds: Any) -> bool:
    if not isinstance(thing, Value):
        return isinstance(thing, kinds)
    if not thing.number:
        return isinstance(thing.fake, kinds)
    dtype = thing.fake.dtype
    kind = bool if dtype is torch.bool else float if dtype.is_floating_point else int
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    return issubclass(kind, wanted)


def items(walk: Walk, thing: Any, node: ast.AST) -> tuple[Any, ...]:
    """What a loop goes over."""
    if isinstance(thing, Value):
        raise walk.refuse(
            node, "a loop over the rows of a tensor cannot be compiled; loop over their numbers"
        )
    try:
        found = tuple(thing)
    except TypeError as error:
        raise walk.refuse(node, str(error)) from None
    return tuple(own(walk, thing) for thing in found)


def bind(walk: Walk, target: ast.expr, thing: Any, flow: Flow) -> None:
    """Assign to names, and to tuples of them."""
    if isinstance(target, ast.Name):
        flow.frames[-1][target.id] = thing
        if isinstance(thing, Value) and not thing.named and thing.storage not in walk.recorder.own:
            thing.name, thing.named = walk.recorder.name(target.id), True
        return
    if not isinstance(target, (ast.Tuple, ast.List)):
        raise walk.refuse(target, "an assignment to this cannot be compiled")
    if isinstance(thing, Value):
        thing = walk.apply(flow, "unbind", thing, node=target, hint=thing.name)
    found = items(walk, thing, target)
    stars = [k for k, inner in enumerate(target.elts) if isinstance(inner, ast.Starred)]
    if len(found) < len(target.elts) - len(stars) or (len(found) > len(target.elts) and not stars):
        raise walk.refuse(target, f"{len(found)} values are assigned to {len(target.elts)} names")
    for k in stars:
        rest = len(found) - len(target.elts) + 1
        found = (*found[:k], Local(found[k : k + rest]), *found[k + rest :])
    for inner, thing in zip(target.elts, found, strict=True):
        bind(walk, inner.value if isinstance(inner, ast.Starred) else inner, thing, flow)


def _module(
    walk: Walk,
    flow: Flow,
    module: nn.Module,
    args: list[Any],
    kwargs: dict[str, Any],
    node: ast.AST,
    run: Run,
) -> list[Flow]:
    """torch's own modules and traced ones are operations; of others the source is followed."""
    leaf = isinstance(module, fx.GraphModule) or type(module).__module__.partition(".")[0] == "torch"
    concerned = module.modules() if leaf else [module]
    if any(getattr(m, hooks) for m in concerned for hooks in _HOOKS):
        raise walk.refuse(node, f"{type(module).__name__} has hooks, whose code cannot be compiled")
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        flows = flow.push(args[0])
        for child in module:
            flows = [made for f in flows for made in _module(walk, f, child, [f.pop()], {}, node, run)]
        return flows
    if leaf:
        hint = type(module).__name__.lower()
        return flow.push(walk.recorder.apply(flow, module, tuple(args), kwargs, walk.where(node), hint))
    return _follow(walk, flow, types.MethodType(type(module).forward, module), args, kwargs, node, run)


def _closure(
    walk: Walk, flow: Flow, closure: Closure, args: list[Any], kwargs: dict[str, Any], node: ast.AST, run: Run
) -> list[Flow]:
    """Into a lambda, which sees the variables around it as they are now."""
    wanted = closure.node.args
    names = [a.arg for a in wanted.args]
    plain = not (wanted.vararg or wanted.kwarg or wanted.kwonlyargs or wanted.posonlyargs or wanted.defaults)
    if not plain or kwargs or len(names) != len(args) or len(flow.frames) <= closure.frame:
        raise walk.refuse(node, "a lambda is followed where it is made, with plain arguments only")
    body = ast.copy_location(ast.Return(closure.node.body), closure.node)
    seen = {**flow.frames[closure.frame], **dict(zip(names, args, strict=True))}
    return walk.inline(replace(closure.source, body=(body,)), seen, flow, node, run)


def _follow(
    walk: Walk, flow: Flow, function: Any, args: list[Any], kwargs: dict[str, Any], node: ast.AST, run: Run
) -> list[Flow]:
    """Into the source of a function."""
    if isinstance(function, types.MethodType):
        args = [function.__self__, *args]
        function = function.__func__
    source = source_of(function)
    try:
        bound = inspect.signature(source.function).bind(*args, **kwargs)
    except TypeError as error:
        raise walk.refuse(node, str(error)) from None
    bound.apply_defaults()
    names = {name: own(walk, thing) for name, thing in bound.arguments.items()}
    return walk.inline(source, names, flow, node, run)
