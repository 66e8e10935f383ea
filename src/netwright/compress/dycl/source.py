"""A function as the tree of its source, and where in it we are."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from netwright.core.errors import NotApplicable

_HARMLESS = (
    "torch.no_grad",
    "torch.inference_mode",
    "no_grad",
    "inference_mode",
    "staticmethod",
    "property",
    "override",
)


@dataclass(frozen=True)
class Source:
    """function: unwrapped. body: its statements, with the line numbers of `file`."""

    function: Callable[..., Any]
    file: str
    body: tuple[ast.stmt, ...]
    text: tuple[str, ...]

    def where(self, node: ast.AST) -> str:
        """'net.py, line 12: for t in range(n):'."""
        line = getattr(node, "lineno", 0)
        said = self.text[line - 1].strip() if 0 < line <= len(self.text) else ""
        return f"{self.file}, line {line}" + (f" ({said})" if said else "")

    def lookup(self, name: str) -> Any:
        """A name that is no variable of the function: of the functions around it, its module, or Python's own."""
        code = self.function.__code__
        if name in code.co_freevars:
            return self.function.__closure__[code.co_freevars.index(name)].cell_contents
        if name in self.function.__globals__:
            return self.function.__globals__[name]
        return getattr(builtins, name)


@cache
def source_of(function: Callable[..., Any]) -> Source:
    """NotApplicable where a function has no source, or decorators that may change what it does."""
    function = inspect.unwrap(function)
    name = getattr(function, "__qualname__", str(function))
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        raise NotApplicable(f"the source of {name} cannot be read, so it cannot be compiled") from None
    ast.increment_lineno(tree, first - 1)
    made = tree.body[0]
    if not isinstance(made, ast.FunctionDef):
        raise NotApplicable(f"{name} is no plain function, so it cannot be compiled")
    file = Path(inspect.getsourcefile(function) or "source").name
    text = ("",) * (first - 1) + tuple(line.rstrip("\n") for line in lines)
    source = Source(function, file, tuple(made.body), text)
    for decorator in made.decorator_list:
        if ast.unparse(decorator).partition("(")[0] not in _HARMLESS:
            raise NotApplicable(
                f"{source.where(decorator)}: a decorator that may change what the function does"
            )
    return source


@cache
def reads(node: ast.AST) -> frozenset[str]:
    """Names that a piece of code reads."""
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Store):
            found.add(inner.id)
        elif isinstance(inner, ast.AugAssign) and isinstance(inner.target, ast.Name):
            found.add(inner.target.id)
    return frozenset(found)


Names = frozenset[str]


@cache
def live(statements: tuple[ast.stmt, ...], after: Names, leave: Names, again: Names) -> Names:
    """The variables that may be read before they are set, from these statements on.

    after, leave, again: those alive behind the statements, where a break leads, and where a continue leads.
    """
    for statement in reversed(statements):
        after = _live(statement, after, leave, again)
    return after


def _live(node: ast.stmt, after: Names, leave: Names, again: Names) -> Names:
    match node:
        case ast.Return() | ast.Raise():
            return reads(node)
        case ast.Break():
            return leave
        case ast.Continue():
            return again
        case ast.Assign(targets=targets):
            return (after - _set(*targets)) | reads(node)
        case ast.AnnAssign(target=target, value=ast.expr()):
            return (after - _set(target)) | reads(node)
        case ast.If(test=test, body=body, orelse=orelse):
            ways = live(tuple(body), after, leave, again) | live(tuple(orelse), after, leave, again)
            return reads(test) | ways
        case ast.For(iter=things):
            return reads(things) | live_at_turn(node, after, leave, again)
        case ast.While():
            return live_at_turn(node, after, leave, again)
        case ast.With(body=body):
            return live(tuple(body), after, leave, again)
    return after | reads(node)


def _set(*targets: ast.expr) -> Names:
    """Variables that an assignment gives a new value, whole."""
    names = (inner for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name))
    return frozenset(name.id for name in names if isinstance(name.ctx, ast.Store))


@cache
def live_at_turn(node: ast.For | ast.While, after: Names, leave: Names, again: Names) -> Names:
    """The variables alive where a loop's next turn begins, or it ends."""
    found = live(tuple(node.orelse), after, leave, again)
    own = reads(node.test) if isinstance(node, ast.While) else frozenset()
    given = _set(node.target) if isinstance(node, ast.For) else frozenset()
    while True:
        more = found | own | (live(tuple(node.body), found, after, found) - given)
        if more == found:
            return found
        found = more
