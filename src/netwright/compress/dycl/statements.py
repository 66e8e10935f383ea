"""Statements: loops are unrolled, decided ifs dropped, the others become decisions of the program."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from netwright.compress.dycl import calls, numbers
from netwright.compress.dycl.expressions import BINARY, combine, each, expression, test
from netwright.compress.dycl.program import Flow, Local, LocalDict, Value
from netwright.compress.dycl.source import live_at_turn
from netwright.compress.dycl.walk import Walk, key

_INPLACE: dict[type, Any] = {
    ast.Add: operator.iadd, ast.Sub: operator.isub, ast.Mult: operator.imul, ast.Div: operator.itruediv,
    ast.FloorDiv: operator.ifloordiv, ast.Mod: operator.imod, ast.Pow: operator.ipow,
    ast.MatMult: operator.matmul, ast.BitAnd: operator.iand, ast.BitOr: operator.ior, ast.BitXor: operator.ixor,
}  # fmt: skip
_GRADIENTS = ("torch.no_grad", "torch.inference_mode", "torch.enable_grad", "torch.set_grad_enabled")


def statement(walk: Walk, node: ast.stmt, flow: Flow) -> list[Flow]:
    """Flows after a statement."""
    kind = _KINDS.get(type(node))
    if kind is None:
        raise walk.refuse(node, f"{_SAID.get(type(node), type(node).__name__)} cannot be compiled")
    return kind(walk, node, flow)


def _assign(walk: Walk, node: ast.Assign, flow: Flow) -> list[Flow]:
    return [
        made
        for f in expression(walk, node.value, flow, statement)
        for made in _store(walk, f, node.targets, node)
    ]


def _store(walk: Walk, flow: Flow, targets: list[ast.expr], node: ast.stmt) -> list[Flow]:
    """What is on the stack, into every target."""
    flows = [flow]
    for target in targets:
        if isinstance(target, ast.Subscript):
            parts = [target.value, target.slice]
            flows = [made for f in flows for made in each(walk, parts, f, statement)]
            for f in flows:
                owner, place = f.take(2)
                _set_item(walk, f, owner, place, f.stack[-1], node)
        elif isinstance(target, ast.Attribute):
            raise walk.refuse(
                node, "it keeps something in the network, a side effect that a compiled one has not"
            )
        else:
            for f in flows:
                calls.bind(walk, target, f.stack[-1], f)
    for f in flows:
        f.pop()
    return flows


def _set_item(walk: Walk, flow: Flow, owner: Any, place: Any, thing: Any, node: ast.stmt) -> None:
    if isinstance(owner, Value):
        walk.apply(flow, operator.setitem, owner, place, thing, node=node)
    elif isinstance(owner, (Local, LocalDict)) and not isinstance(place, Value):
        try:
            owner[place] = thing
        except (LookupError, TypeError) as error:
            raise walk.refuse(node, f"{type(error).__name__}: {error}") from None
    else:
        raise walk.refuse(node, calls.UNMADE)


def _annotated(walk: Walk, node: ast.AnnAssign, flow: Flow) -> list[Flow]:
    if node.value is None:
        return [flow]
    flows = expression(walk, node.value, flow, statement)
    return [made for f in flows for made in _store(walk, f, [node.target], node)]


def _augmented(walk: Walk, node: ast.AugAssign, flow: Flow) -> list[Flow]:
    """`x += y`: in place for tensors and lists, as Python has it."""
    target = node.target
    if isinstance(target, ast.Attribute):
        raise walk.refuse(
            node, "it keeps something in the network, a side effect that a compiled one has not"
        )
    if isinstance(target, ast.Name):
        flows = each(
            walk, [ast.copy_location(ast.Name(target.id, ast.Load()), node), node.value], flow, statement
        )
    else:
        flows = each(walk, [target.value, target.slice], flow, statement)
        for f in flows:
            owner, place = f.stack[-2:]
            f.push(_item(walk, f, owner, place, node))
        flows = [made for f in flows for made in expression(walk, node.value, f, statement)]
    for f in flows:
        left, right = f.take(2)
        made = _changed(walk, f, type(node.op), left, right, node)
        if isinstance(target, ast.Name):
            f.frames[-1][target.id] = made
        else:
            owner, place = f.take(2)
            _set_item(walk, f, owner, place, made, node)
    return flows


def _item(walk: Walk, flow: Flow, owner: Any, place: Any, node: ast.AST) -> Any:
    if isinstance(owner, Value):
        # a copy: what is written back is the whole item
        part = walk.apply(flow, operator.getitem, owner, place, node=node, hint=owner.name)
        return walk.apply(flow, "clone", part, node=node, hint=owner.name)
    if isinstance(owner, (Local, LocalDict)) and not isinstance(place, Value):
        return owner[place]
    raise walk.refuse(node, calls.UNMADE)


def _changed(walk: Walk, flow: Flow, op: type, left: Any, right: Any, node: ast.AST) -> Any:
    if isinstance(left, Value) and not left.number:
        if isinstance(right, Value) and right.number:
            right = numbers.beside(walk, flow, right, left, node)
        return walk.apply(flow, _INPLACE[op], left, right, node=node, hint=left.name)
    if isinstance(left, Local):
        left.extend(calls.items(walk, right, node))
        return left
    if isinstance(left, (list, dict)):
        raise walk.refuse(node, calls.UNMADE)
    return combine(walk, flow, BINARY[op], left, right, node)


def _expression(walk: Walk, node: ast.Expr, flow: Flow) -> list[Flow]:
    if isinstance(node.value, ast.Constant):
        return [flow]
    flows = expression(walk, node.value, flow, statement)
    for f in flows:
        f.pop()
    return flows


def _if(walk: Walk, node: ast.If, flow: Flow) -> list[Flow]:
    yes, no = test(walk, node.test, flow, statement)
    after = walk.after[-1].behind
    done = [made for f in yes for made in walk.body(node.body, f, statement, after)]
    return done + [made for f in no for made in walk.body(node.orelse, f, statement, after)]


def _for(walk: Walk, node: ast.For, flow: Flow) -> list[Flow]:
    done = []
    for f in expression(walk, node.iter, flow, statement):
        source = f.pop()
        if isinstance(source, Value):
            if source.number or not source.fake.dim():
                raise walk.refuse(node, "a number that depends on the input is no loop's")
            source = walk.apply(f, "unbind", source, node=node, hint=source.name)
        things = calls.items(walk, source, node)
        if len(things) > walk.turns:
            raise walk.refuse(
                node, f"a loop of {len(things)} turns; at most {walk.turns} are unrolled (turns=...)"
            )
        f.push(things)
        done += _turns(walk, node, f, len(things))
    return done


def _turns(walk: Walk, node: ast.For, flow: Flow, count: int) -> list[Flow]:
    """Turn after turn; the stack ends with the things."""
    going, left = [flow], []
    for place in range(count):
        turned = []
        for f in going:
            calls.bind(walk, node.target, f.stack[-1][place], f)
            turned += _turn(walk, node, f)
        going, out = _next(walk, turned, node)
        left += out
    if node.orelse:
        going = [made for f in going for made in walk.body(node.orelse, f, statement, walk.after[-1].behind)]
    left = _left(left)
    for f in (*going, *left):
        if f.kind != "return":
            f.pop()
    return going + left


def _turn(walk: Walk, node: ast.For | ast.While, flow: Flow) -> list[Flow]:
    """Once through a loop's body."""
    around = walk.after[-1]
    head = live_at_turn(node, around.behind, around.leave, around.again)
    return walk.body(node.body, flow, statement, head, around.behind, head)


def _next(walk: Walk, turned: list[Flow], node: ast.For | ast.While) -> tuple[list[Flow], list[Flow]]:
    """After a turn: the flows of the next one, and those that left the loop."""
    for f in turned:
        if f.kind == "continue":
            f.kind = ""
    around = walk.after[-1]
    head = live_at_turn(node, around.behind, around.leave, around.again)
    walk.after[-1] = replace(around, now=head | around.behind)
    turned = walk.merge(turned, node)
    walk.after[-1] = around
    return [f for f in turned if not f.kind], [f for f in turned if f.kind]


def _left(flows: list[Flow]) -> list[Flow]:
    for f in flows:
        if f.kind == "break":
            f.kind = ""
    return flows


def _while(walk: Walk, node: ast.While, flow: Flow) -> list[Flow]:
    going, left, ended = [flow], [], []
    before: set[Any] = set()
    for _ in range(walk.turns + 1):
        turned = []
        for f in going:
            yes, no = test(walk, node.test, f, statement)
            ended += no
            for there in yes:
                state = key(there)
                if state in before:
                    raise walk.refuse(node, _ENDLESS)
                before.add(state)
                turned += _turn(walk, node, there)
        going, out = _next(walk, turned, node)
        left += out
        if not going:
            break
    else:
        raise walk.refuse(node, f"{_ENDLESS} ({walk.turns} turns were tried; turns=... allows more)")
    if node.orelse:
        ended = [
            made
            for f in walk.merge(ended, node)
            for made in walk.body(node.orelse, f, statement, walk.after[-1].behind)
        ]
    return ended + _left(left)


_ENDLESS = (
    "this loop has no bound that is independent of the input; count its turns, and end it at a fixed number"
)


def _break(walk: Walk, node: ast.Break, flow: Flow) -> list[Flow]:
    flow.kind = "break"
    return [flow]


def _continue(walk: Walk, node: ast.Continue, flow: Flow) -> list[Flow]:
    flow.kind = "continue"
    return [flow]


def _return(walk: Walk, node: ast.Return, flow: Flow) -> list[Flow]:
    flows = flow.push(None) if node.value is None else expression(walk, node.value, flow, statement)
    for f in flows:
        f.kind, f.result = "return", f.pop()
        del f.stack[walk.bases[-1] :]
    return flows


def _pass(walk: Walk, node: ast.Pass, flow: Flow) -> list[Flow]:
    return [flow]


def _assert(walk: Walk, node: ast.Assert, flow: Flow) -> list[Flow]:
    yes, no = test(walk, node.test, flow, statement)
    for f in no:
        _ends(walk, node, f)
    return yes


def _raise(walk: Walk, node: ast.Raise, flow: Flow) -> list[Flow]:
    _ends(walk, node, flow)
    return []


def _ends(walk: Walk, node: ast.stmt, flow: Flow) -> None:
    """Where the method raises an error, the plan fails."""
    walk.fail(flow, walk.where(node))


def _delete(walk: Walk, node: ast.Delete, flow: Flow) -> list[Flow]:
    for target in node.targets:
        if not isinstance(target, ast.Name):
            raise walk.refuse(node, "del of anything but names cannot be compiled")
        flow.frames[-1].pop(target.id, None)
    return [flow]


def _with(walk: Walk, node: ast.With, flow: Flow) -> list[Flow]:
    """Only blocks that are about gradients, which a compiled network has not."""
    for part in node.items:
        if (
            ast.unparse(part.context_expr).partition("(")[0] not in _GRADIENTS
            or part.optional_vars is not None
        ):
            raise walk.refuse(node, "a with block cannot be compiled, but for torch.no_grad()")
    return walk.body(node.body, flow, statement, walk.after[-1].behind)


_KINDS: dict[type, Callable[..., list[Flow]]] = {
    ast.Assign: _assign, ast.AnnAssign: _annotated, ast.AugAssign: _augmented, ast.Expr: _expression,
    ast.If: _if, ast.For: _for, ast.While: _while, ast.Break: _break, ast.Continue: _continue,
    ast.Return: _return, ast.Pass: _pass, ast.Assert: _assert, ast.Raise: _raise, ast.Delete: _delete,
    ast.With: _with,
}  # fmt: skip
_SAID = {
    ast.Try: "try", ast.FunctionDef: "a function within the method", ast.ClassDef: "a class within the method",
    ast.Import: "an import within the method", ast.ImportFrom: "an import within the method",
    ast.Global: "global", ast.Nonlocal: "nonlocal", ast.Match: "match",
}  # fmt: skip
