"""Python numbers that depend on the input: tensors without dimensions, in the 64 bits that Python computes with."""

from __future__ import annotations

import ast
import operator
from typing import Any

import torch

from netwright.compress.dycl.program import Flow, Value
from netwright.compress.dycl.walk import Walk

_COMPARING = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)
_ARITHMETIC = (
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
)  # fmt: skip
_KIND: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}


def number(walk: Walk, flow: Flow, value: Value, node: ast.AST, kind: type | None = None) -> Value:
    """item(), int(), float() and bool() of a tensor with one entry."""
    if value.fake.numel() != 1:
        raise walk.refuse(node, f"a number is wanted of a tensor of {value.fake.numel()} entries")
    if kind is None:
        dtype = value.fake.dtype
        kind = bool if dtype is torch.bool else float if dtype.is_floating_point else int
    made = value
    if value.fake.dim():
        made = walk.apply(flow, "reshape", made, (), node=node, hint=value.name)
    if made.fake.dtype is not _KIND[kind]:
        made = walk.apply(flow, "to", made, _KIND[kind], node=node, hint=value.name)
    if made.number:
        return made
    # a value of its own: the same entries as a number
    made = walk.apply(flow, "clone", made, node=node, hint=value.name)
    made.number = True
    return made


def combine(walk: Walk, flow: Flow, op: Any, left: Any, right: Any, node: ast.AST) -> Any:
    """A binary operator of which one side at least is a value."""
    if any(isinstance(side, Value) and not side.number for side in (left, right)):
        left, right = beside(walk, flow, left, right, node), beside(walk, flow, right, left, node)
        return walk.apply(flow, op, left, right, node=node, hint="v")
    if op not in _COMPARING + _ARITHMETIC:
        raise walk.refuse(node, f"{op.__name__} of numbers that depend on the input cannot be compiled")
    if any(not isinstance(side, (Value, bool, int, float)) for side in (left, right)):
        if op in (operator.eq, operator.ne):
            return op is operator.ne  # a number equals nothing else
        raise walk.refuse(node, "a number that depends on the input stands beside what is no number")
    floats = op is operator.truediv or any(_float(side) for side in (left, right))
    dtype = torch.float64 if floats else torch.int64
    sides = [_in(walk, flow, side, dtype, node) for side in (left, right)]
    if floats:  # the older exporter takes a double without dimensions for a float
        sides = [walk.apply(flow, "reshape", side, (1,), node=node) for side in sides]
    if op is operator.floordiv:
        made = _floor_divided(walk, flow, *sides, floats, node)
    else:
        made = walk.apply(flow, op, *sides, node=node, hint="n")
    made = walk.apply(flow, "reshape", made, (), node=node, hint="n") if floats else made
    made.number = True
    return made


def _floor_divided(walk: Walk, flow: Flow, left: Any, right: Any, floats: bool, node: ast.AST) -> Any:
    """As Python has it: what is left when the rest is taken away is divided without one."""
    rest = walk.apply(flow, operator.mod, left, right, node=node)
    whole = walk.apply(flow, operator.sub, left, rest, node=node)
    if floats:
        ratio = walk.apply(flow, operator.truediv, whole, right, node=node)
        return walk.apply(flow, torch.round, ratio, node=node, hint="n")
    return walk.recorder.apply(
        flow, torch.div, (whole, right), {"rounding_mode": "trunc"}, walk.where(node), "n"
    )


def _float(side: Any) -> bool:
    return side.fake.dtype.is_floating_point if isinstance(side, Value) else isinstance(side, float)


def _in(walk: Walk, flow: Flow, side: Any, dtype: torch.dtype, node: ast.AST) -> Any:
    if not isinstance(side, Value):
        return walk.recorder.apply(flow, torch.tensor, (side,), {"dtype": dtype}, walk.where(node))
    return (
        side if side.fake.dtype is dtype else walk.apply(flow, "to", side, dtype, node=node, hint=side.name)
    )


def beside(walk: Walk, flow: Flow, side: Any, other: Any, node: ast.AST) -> Any:
    """A number beside a tensor takes the type that torch would compute with."""
    if not (isinstance(side, Value) and side.number and isinstance(other, Value)):
        return side
    example = {torch.bool: True, torch.int64: 1, torch.float64: 1.0}[side.fake.dtype]
    dtype = torch.result_type(other.fake, example)
    return _in(walk, flow, side, dtype, node)


def unary(walk: Walk, flow: Flow, op: Any, value: Value, node: ast.AST) -> Value:
    made = walk.apply(flow, op, value, node=node, hint=value.name)
    if value.number and made is not value:
        made.number = True
    return made


def as_tensor(walk: Walk, flow: Flow, data: Any, dtype: torch.dtype | None, node: ast.AST) -> Value:
    """torch.tensor of data that holds numbers of the input: they are put together."""
    if isinstance(data, Value):
        wanted = dtype or (torch.get_default_dtype() if data.number and _float(data) else data.fake.dtype)
        made = walk.apply(flow, "clone", data, node=node)
        return walk.apply(flow, "to", made, wanted, node=node) if wanted is not data.fake.dtype else made
    if isinstance(data, (list, tuple)):
        parts = [as_tensor(walk, flow, item, dtype, node) for item in data]
        kinds = {part.fake.dtype for part in parts}
        if len(kinds) > 1:
            raise walk.refuse(node, "a tensor is made of numbers of several types; name its dtype")
        return walk.apply(flow, torch.stack, tuple(parts), node=node)
    return (
        walk.apply(flow, torch.tensor, data, node=node)
        if dtype is None
        else walk.recorder.apply(flow, torch.tensor, (data,), {"dtype": dtype}, walk.where(node))
    )
