"""Expressions, with what is known computed now and the rest recorded. Each leaves its result on the flow's stack."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from torch import nn

from netwright.compress.dycl import calls, numbers
from netwright.compress.dycl.program import Closure, Flow, Local, LocalDict, Value, values_in
from netwright.compress.dycl.walk import Walk

Run = Callable[[Walk, ast.stmt, Flow], list[Flow]]

BINARY: dict[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.MatMult: operator.matmul,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}  # fmt: skip
COMPARED: dict[type, Any] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
UNARY: dict[type, Any] = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert}


def expression(walk: Walk, node: ast.expr, flow: Flow, run: Run) -> list[Flow]:
    """Flows that have the value of `node` on their stacks. run: how statements of called functions are run."""
    kind = _KINDS.get(type(node))
    if kind is None:
        raise walk.refuse(node, f"{type(node).__name__} expressions cannot be compiled")
    return kind(walk, node, flow, run)


def each(walk: Walk, nodes: list[ast.expr], flow: Flow, run: Run) -> list[Flow]:
    """All the values, in order, on the stack."""
    flows = [flow]
    for node in nodes:
        flows = [made for f in flows for made in expression(walk, node, f, run)]
    return flows


def test(walk: Walk, node: ast.expr, flow: Flow, run: Run) -> tuple[list[Flow], list[Flow]]:
    """The flows in which a condition is true, and those in which it is false."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return test(walk, node.operand, flow, run)[::-1]
    going, settled = [flow], []
    parts, all_of = [node], True
    if isinstance(node, ast.BoolOp):
        parts, all_of = node.values, isinstance(node.op, ast.And)
    for part in parts:
        following = []
        for f in going:
            if part is node:
                yes, no = _decided(walk, node, expression(walk, node, f, run))
            else:
                yes, no = test(walk, part, f, run)
            following += yes if all_of else no
            settled += no if all_of else yes
        going = walk.merge(following, node)
    settled = walk.merge(settled, node)
    return (going, settled) if all_of else (settled, going)


def _decided(walk: Walk, node: ast.AST, flows: list[Flow]) -> tuple[list[Flow], list[Flow]]:
    yes, no = [], []
    for f in flows:
        a, b = walk.decide(f, f.pop(), node)
        yes += a
        no += b
    return yes, no


def _constant(walk: Walk, node: ast.Constant, flow: Flow, run: Run) -> list[Flow]:
    return flow.push(node.value)


def _name(walk: Walk, node: ast.Name, flow: Flow, run: Run) -> list[Flow]:
    if node.id in flow.frames[-1]:
        return flow.push(flow.frames[-1][node.id])
    try:
        return flow.push(calls.own(walk, walk.sources[-1].lookup(node.id)))
    except AttributeError:
        raise walk.refuse(node, f"'{node.id}' has no value here") from None


def _attribute(walk: Walk, node: ast.Attribute, flow: Flow, run: Run) -> list[Flow]:
    return [
        made
        for f in expression(walk, node.value, flow, run)
        for made in calls.attribute(walk, f, node.attr, node, run)
    ]


def _subscript(walk: Walk, node: ast.Subscript, flow: Flow, run: Run) -> list[Flow]:
    return [made for f in each(walk, [node.value, node.slice], flow, run) for made in item(walk, f, node)]


def item(walk: Walk, flow: Flow, node: ast.AST) -> list[Flow]:
    """owner[key], both on the stack."""
    owner, key = flow.take(2)
    if isinstance(owner, Value):
        return flow.push(walk.apply(flow, operator.getitem, owner, key, node=node, hint=owner.name))
    if not isinstance(key, Value):
        if any(True for _ in values_in(key)):
            raise walk.refuse(
                node, "a slice of a list by numbers that depend on the input cannot be compiled"
            )
        try:
            found = owner[key]
        except (LookupError, TypeError) as error:
            raise walk.refuse(node, f"{type(error).__name__}: {error}") from None
        if isinstance(owner, Local) and isinstance(key, slice):
            found = Local(found)
        return flow.push(calls.own(walk, found))
    flow.push(owner)
    flow.push(key)
    return _chosen(walk, flow, node)


def _chosen(walk: Walk, flow: Flow, node: ast.AST) -> list[Flow]:
    """A known list's item by an index that depends on the input: a decision for each place."""
    owner = flow.stack[-2]
    if not isinstance(owner, (list, tuple, nn.ModuleList, nn.Sequential)):
        raise walk.refuse(
            node, f"a {type(owner).__name__}'s item that depends on the input cannot be compiled"
        )
    index, count = flow.pop(), len(owner)
    tests = []
    for place in range(count):
        ends = [
            walk.apply(flow, operator.eq, index, k, node=node, hint="is_it") for k in (place, place - count)
        ]
        tests.append(walk.apply(flow, operator.or_, *ends, node=node, hint="is_it"))
    flow.push(tuple(tests))
    chosen, going = [], [flow]
    for place in range(count):
        following = []
        for f in going:
            yes, no = walk.decide(f, f.stack[-1][place], node)
            following += no
            for there in yes:
                things, _ = there.take(2)
                chosen += there.push(calls.own(walk, things[place]))
        going = following
    for f in going:
        walk.fail(f, f"{walk.where(node)}: index out of range")
    return walk.merge(chosen, node)


def _slice(walk: Walk, node: ast.Slice, flow: Flow, run: Run) -> list[Flow]:
    parts = [p if p is not None else ast.Constant(None) for p in (node.lower, node.upper, node.step)]
    return [made for f in each(walk, parts, flow, run) for made in f.push(slice(*f.take(3)))]


def _display(walk: Walk, node: ast.Tuple | ast.List, flow: Flow, run: Run) -> list[Flow]:
    make = tuple if isinstance(node, ast.Tuple) else Local
    flows = each(walk, [_unstarred(n) for n in node.elts], flow, run)
    for f in flows:
        f.push(make(spread(walk, f.take(len(node.elts)), node.elts)))
    return flows


def _unstarred(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Starred) else node


def spread(walk: Walk, items: list[Any], nodes: list[ast.expr]) -> list[Any]:
    """Items with those that were starred taken apart."""
    found: list[Any] = []
    for thing, node in zip(items, nodes, strict=True):
        found += calls.items(walk, thing, node) if isinstance(node, ast.Starred) else [thing]
    return found


def _dict(walk: Walk, node: ast.Dict, flow: Flow, run: Run) -> list[Flow]:
    if None in node.keys:
        raise walk.refuse(node, "** in a dictionary cannot be compiled")
    flows = each(walk, [*node.keys, *node.values], flow, run)  # type: ignore[list-item]
    for f in flows:
        values = f.take(len(node.values))
        f.push(LocalDict(zip(f.take(len(node.keys)), values, strict=True)))
    return flows


def _call(walk: Walk, node: ast.Call, flow: Flow, run: Run) -> list[Flow]:
    given = [node.func, *map(_unstarred, node.args), *(k.value for k in node.keywords)]
    done = []
    for f in each(walk, given, flow, run):
        callee, *rest = f.take(len(given))
        args = spread(walk, rest[: len(node.args)], node.args)
        kwargs: dict[str, Any] = {}
        for word, value in zip(node.keywords, rest[len(node.args) :], strict=True):
            kwargs |= value if word.arg is None else {word.arg: value}
        done += calls.call(walk, f, callee, args, kwargs, node, run)
    return done


def _binary(walk: Walk, node: ast.BinOp, flow: Flow, run: Run) -> list[Flow]:
    flows = each(walk, [node.left, node.right], flow, run)
    for f in flows:
        f.push(combine(walk, f, BINARY[type(node.op)], *f.take(2), node))
    return flows


def combine(walk: Walk, flow: Flow, op: Any, left: Any, right: Any, node: ast.AST) -> Any:
    """The result of a binary operator."""
    if not isinstance(left, Value) and not isinstance(right, Value):
        if op in COMPARED.values() and any(True for _ in values_in((left, right))):
            raise walk.refuse(node, "a comparison of lists that depend on the input cannot be compiled")
        try:
            made = op(left, right)
        except Exception as error:
            raise walk.refuse(node, f"{type(error).__name__}: {error}") from None
        return Local(made) if isinstance(left, Local) and isinstance(made, list) else made
    return numbers.combine(walk, flow, op, left, right, node)


def _unary(walk: Walk, node: ast.UnaryOp, flow: Flow, run: Run) -> list[Flow]:
    if isinstance(node.op, ast.Not):
        yes, no = test(walk, node.operand, flow, run)
        return walk.merge(
            [*(m for f in yes for m in f.push(False)), *(m for f in no for m in f.push(True))], node
        )
    flows = expression(walk, node.operand, flow, run)
    for f in flows:
        thing, op = f.pop(), UNARY[type(node.op)]
        made = numbers.unary(walk, f, op, thing, node) if isinstance(thing, Value) else op(thing)
        f.push(made)
    return flows


def _either(walk: Walk, node: ast.BoolOp, flow: Flow, run: Run) -> list[Flow]:
    """`a and b`, `a or b`, as values: the operand that decides."""
    first, *rest = node.values
    done = []
    for f in expression(walk, first, flow, run):
        if not rest:
            done.append(f)
            continue
        yes, no = walk.decide(f, f.stack[-1], node)
        stay, on = (no, yes) if isinstance(node.op, ast.And) else (yes, no)
        done += stay
        for other in on:
            other.pop()
            done += _either(walk, ast.copy_location(ast.BoolOp(node.op, rest), node), other, run)
    return walk.merge(done, node)


def _compare(walk: Walk, node: ast.Compare, flow: Flow, run: Run) -> list[Flow]:
    if len(node.ops) > 1:
        middle = node.comparators[0]
        if not isinstance(middle, (ast.Name, ast.Constant)):
            raise walk.refuse(node, "a chain of comparisons over more than names cannot be compiled")
        parts = [
            ast.Compare(node.left, node.ops[:1], [middle]),
            ast.Compare(middle, node.ops[1:], node.comparators[1:]),
        ]
        parts = [ast.copy_location(part, node) for part in parts]
        return _either(walk, ast.copy_location(ast.BoolOp(ast.And(), parts), node), flow, run)  # type: ignore[arg-type]
    flows = each(walk, [node.left, node.comparators[0]], flow, run)
    for f in flows:
        left, right = f.take(2)
        op = node.ops[0]
        if isinstance(op, (ast.Is, ast.IsNot)) and isinstance(left, Value) and isinstance(right, Value):
            raise walk.refuse(node, "whether two tensors are one object cannot be compiled")
        if isinstance(op, (ast.Is, ast.IsNot)):
            f.push(COMPARED[type(op)](left, right))
        elif isinstance(op, (ast.In, ast.NotIn)) and any(True for _ in values_in((left, right))):
            raise walk.refuse(
                node, "whether a list holds a value cannot be compiled; compare with == and `or`"
            )
        else:
            f.push(combine(walk, f, COMPARED[type(op)], left, right, node))
    return flows


def _if(walk: Walk, node: ast.IfExp, flow: Flow, run: Run) -> list[Flow]:
    yes, no = test(walk, node.test, flow, run)
    done = [made for f in yes for made in expression(walk, node.body, f, run)]
    done += [made for f in no for made in expression(walk, node.orelse, f, run)]
    return walk.merge(done, node)


def _comprehension(walk: Walk, node: ast.ListComp | ast.GeneratorExp, flow: Flow, run: Run) -> list[Flow]:
    """A list, made item by item over what is known."""
    if len(node.generators) > 1:
        raise walk.refuse(node, "a comprehension over more than one loop cannot be compiled")
    loop = node.generators[0]
    done = []
    for f in expression(walk, loop.iter, flow, run):
        source = calls.items(walk, f.pop(), loop.iter)
        hidden = {
            n.id: f.frames[-1].get(n.id, _NOTHING) for n in ast.walk(loop.target) if isinstance(n, ast.Name)
        }
        f.push(tuple(source))
        f.push(Local())
        flows = [f]
        for place in range(len(source)):
            flows = [made for g in flows for made in _one(walk, node, g, place, run)]
        for g in flows:
            made = g.pop()
            g.pop()
            for name, before in hidden.items():
                g.frames[-1].pop(name, None)
                if before is not _NOTHING:
                    g.frames[-1][name] = before
            g.push(made)
        done += flows
    return done


_NOTHING = object()


def _one(walk: Walk, node: ast.ListComp | ast.GeneratorExp, flow: Flow, place: int, run: Run) -> list[Flow]:
    """One turn of a comprehension: the stack ends with the items and the list so far."""
    loop = node.generators[0]
    calls.bind(walk, loop.target, flow.stack[-2][place], flow)
    going, skipped = [flow], []
    for condition in loop.ifs:
        parted = [test(walk, condition, f, run) for f in going]
        going = [f for yes, _ in parted for f in yes]
        skipped += [f for _, no in parted for f in no]
    done = []
    for f in going:
        for made in expression(walk, node.elt, f, run):
            thing = made.pop()
            made.stack[-1].append(thing)
            done.append(made)
    return walk.merge([*done, *skipped], node)


def _lambda(walk: Walk, node: ast.Lambda, flow: Flow, run: Run) -> list[Flow]:
    return flow.push(Closure(node, walk.sources[-1], len(flow.frames) - 1))


def _text(walk: Walk, node: ast.JoinedStr, flow: Flow, run: Run) -> list[Flow]:
    parts = [p.value if isinstance(p, ast.FormattedValue) else p for p in node.values]
    flows = each(walk, parts, flow, run)
    for f in flows:
        pieces = f.take(len(parts))
        if any(True for _ in values_in(tuple(pieces))):
            raise walk.refuse(node, "text that depends on the input cannot be compiled")
        formats = [p.format_spec for p in node.values if isinstance(p, ast.FormattedValue)]
        if any(formats):
            raise walk.refuse(node, "formatted text cannot be compiled")
        f.push("".join(map(str, pieces)))
    return flows


def _named(walk: Walk, node: ast.NamedExpr, flow: Flow, run: Run) -> list[Flow]:
    flows = expression(walk, node.value, flow, run)
    for f in flows:
        f.frames[-1][node.target.id] = f.stack[-1]
    return flows


_KINDS: dict[type, Callable[..., list[Flow]]] = {
    ast.Constant: _constant, ast.Name: _name, ast.Attribute: _attribute, ast.Subscript: _subscript,
    ast.Slice: _slice, ast.Tuple: _display, ast.List: _display, ast.Dict: _dict, ast.Call: _call,
    ast.BinOp: _binary, ast.UnaryOp: _unary, ast.BoolOp: _either, ast.Compare: _compare, ast.IfExp: _if,
    ast.ListComp: _comprehension, ast.GeneratorExp: _comprehension, ast.JoinedStr: _text, ast.NamedExpr: _named,
    ast.Lambda: _lambda,
}  # fmt: skip
