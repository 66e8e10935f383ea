"""Every small fault that can be put into a source file, as replacements of its text.

Not drawn, because no test could or should tell them apart: docstrings, annotations, imports, decorators, what an error
or a warning says, progress notes, text, how a picture looks, conversions, devices and dtypes, tiny numbers that guard a
division, `strict=` of a zip, assertions for the type checker.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: ">=", ast.GtE: "<", ast.Gt: "<=", ast.LtE: ">", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
AT_THE_EDGE = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
CALCULATED = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*",
    ast.BitAnd: "|", ast.BitOr: "&",
}  # fmt: skip
TAKEN_FOR = {
    "min": "max", "amin": "amax", "argmin": "argmax", "minimum": "maximum", "cummin": "cummax", "any": "all",
    "floor": "ceil", "zeros": "ones", "zeros_like": "ones_like", "zeros_": "ones_", "sin": "cos", "exp": "log",
    "mean": "sum", "clamp_min": "clamp_max", "train": "eval", "append": "extend", "triu": "tril", "less": "greater",
    "sigmoid": "tanh", "log2": "log", "abs": "neg", "relu": "abs", "var": "std", "flip": "clone",
}  # fmt: skip
TAKEN_FOR |= {b: a for a, b in TAKEN_FOR.items() if b not in ("clone", "log", "abs", "neg", "tanh", "extend")}

# calls without an effect that a test on a CPU could see
UNSEEN_CALLS = {
    "to", "cpu", "cuda", "contiguous", "numpy", "item", "tolist", "warn", "debug", "info", "warning", "print", "step",
    "cast", "super", "__init__", "close", "pin_memory", "note", "asarray", "float", "bool", "str", "list", "tuple",
    "dict",
}  # fmt: skip
SAID = {
    "warn",
    "debug",
    "info",
    "warning",
    "print",
    "update_layout",
    "update_xaxes",
    "update_yaxes",
    "add_annotation",
}
SAYING = {"progress", "warnings", "logging"}
UNSEEN_KEYWORDS = {
    "strict", "device", "dtype", "name", "title", "label", "encoding", "inplace", "copy", "stacklevel", "hovertemplate",
    "template", "text", "mode", "key", "non_blocking", "n_jobs", "disable", "colorscale", "zmin", "zmax", "line",
    "marker",
}  # fmt: skip
MODULES = {"torch", "np", "numpy", "F", "nn", "math", "scipy", "ast", "plt", "go"}
SIZES = {
    "batch",
    "batch_size",
    "chunk",
    "block",
    "_BATCH",
    "_CHUNK",
}  # how much at a time: the result is the same


@dataclass(frozen=True)
class Mutant:
    """source[start:end] (characters) is replaced. line: where, from 1. kind: what sort of fault."""

    kind: str
    line: int
    start: int
    end: int
    text: str

    def of(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]


def mutants(source: str) -> list[Mutant]:
    """In the order of the file. A few may be no Python, or change nothing: see `differs`."""
    found = _Sites(source, ast.parse(source)).all()
    return sorted(set(found), key=lambda m: (m.start, m.end, m.kind, m.text))


def differs(source: str, mutant: Mutant) -> bool:
    """Whether the file with the fault is Python, and not the same to it."""
    try:
        return ast.dump(ast.parse(mutant.of(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


class _Sites:
    def __init__(self, source: str, tree: ast.Module) -> None:
        self.source, self.tree = source, tree
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.lines = source.splitlines(keepends=True)

    def all(self) -> Iterator[Mutant]:
        yield from self._under(self.tree)

    def _under(self, node: ast.AST) -> Iterator[Mutant]:
        if self._is_left_out(node):
            return
        sites = getattr(self, f"_at_{type(node).__name__.lower()}", None)
        if sites is not None:
            yield from sites(node)
        for child in self._children(node):
            yield from self._under(child)

    @staticmethod
    def _children(node: ast.AST) -> Iterator[ast.AST]:
        skipped = {"annotation", "returns", "decorator_list", "type_params", "bases"}
        for name, value in ast.iter_fields(node):
            if name not in skipped:
                yield from (
                    v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST)
                )

    @staticmethod
    def _is_left_out(node: ast.AST) -> bool:
        if isinstance(
            node, (ast.Import, ast.ImportFrom, ast.Raise, ast.Assert, ast.JoinedStr, ast.ExceptHandler)
        ):
            return True
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
            return True
        if isinstance(node, ast.Call):
            return _called(node) in UNSEEN_CALLS - {
                "to",
                "cpu",
                "contiguous",
                "numpy",
                "item",
                "tolist",
                "step",
            } or (
                isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in ("progress", "warnings", "logging")
            )
        if isinstance(node, ast.Assign):  # names of types, and of what this file offers
            return any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets) or (
                isinstance(node.value, ast.Subscript)
                and isinstance(node.value.value, ast.Name)
                and node.value.value.id in ("Literal", "Callable", "dict", "list", "tuple")
            )
        return isinstance(node, ast.keyword) and node.arg in UNSEEN_KEYWORDS

    # places in the text

    def _span(self, node: ast.AST) -> tuple[int, int]:
        def at(line: int, column: int) -> int:  # ast counts bytes
            return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

        return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self.source[start:end]

    def _replaced(self, kind: str, node: ast.AST, text: str) -> Mutant:
        start, end = self._span(node)
        return Mutant(kind, node.lineno, start, end, text)  # type: ignore[attr-defined]

    def _between(self, kind: str, left: ast.AST, right: ast.AST, old: str, new: str) -> Iterator[Mutant]:
        """An operator that stands between two operands."""
        start, end = self._span(left)[1], self._span(right)[0]
        place = self.source.find(old, start, end)
        if place >= 0:
            line = self.source.count("\n", 0, place) + 1
            yield Mutant(kind, line, place, place + len(old), new)

    # one rule for each kind of node

    def _at_compare(self, node: ast.Compare) -> Iterator[Mutant]:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            old = _written(operator)
            yield from self._between("comparison", left, right, old, COMPARED[type(operator)])
            if type(operator) in AT_THE_EDGE and (_counts(left) or _counts(right)):
                yield from self._between("edge", left, right, old, AT_THE_EDGE[type(operator)])
            left = right

    def _at_binop(self, node: ast.BinOp) -> Iterator[Mutant]:
        new = CALCULATED.get(type(node.op))
        if new is None or any(
            isinstance(n, (ast.JoinedStr, ast.List, ast.Tuple)) or _is_text(n) for n in ast.walk(node)
        ):
            return
        yield from self._between("arithmetic", node.left, node.right, _written(node.op), new)

    def _at_unaryop(self, node: ast.UnaryOp) -> Iterator[Mutant]:
        if isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
            yield self._replaced("negation", node, f"({self._text(node.operand)})")

    def _at_boolop(self, node: ast.BoolOp) -> Iterator[Mutant]:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        yield from self._between("logic", node.values[0], node.values[1], old, new)

    def _at_constant(self, node: ast.Constant) -> Iterator[Mutant]:
        new = _other_value(node.value)
        if new:
            yield self._replaced("constant", node, new)

    def _at_augassign(self, node: ast.AugAssign) -> Iterator[Mutant]:
        new = CALCULATED.get(type(node.op))
        if new:
            yield from self._between(
                "arithmetic", node.target, node.value, _written(node.op) + "=", new + "="
            )
            yield self._replaced("dropped statement", node, "pass")

    def _at_expr(self, node: ast.Expr) -> Iterator[Mutant]:
        if isinstance(node.value, ast.Call) and not self._is_left_out(node.value):
            yield self._replaced("dropped statement", node, "pass")

    def _at_break(self, node: ast.Break) -> Iterator[Mutant]:
        yield self._replaced("dropped statement", node, "pass")

    _at_continue = _at_break

    def _at_assign(self, node: ast.Assign) -> Iterator[Mutant]:
        """What is worked out anew keeps its old value: `x = f(x)`, `weights[i] = ...`."""
        target = node.targets[0]
        own = isinstance(target, ast.Name) and any(
            isinstance(n, ast.Name) and n.id == target.id for n in ast.walk(node.value)
        )
        if own or isinstance(target, ast.Subscript):
            yield self._replaced("dropped statement", node, "pass")

    def _at_if(self, node: ast.If) -> Iterator[Mutant]:
        if all(
            isinstance(n, ast.Expr) and self._is_left_out(n.value) for n in node.body
        ):  # only a progress note
            return
        for value in ("True", "False"):
            yield self._replaced("condition", node.test, value)

    def _at_ifexp(self, node: ast.IfExp) -> Iterator[Mutant]:
        for value in ("True", "False"):
            yield self._replaced("condition", node.test, value)

    def _at_comprehension(self, node: ast.comprehension) -> Iterator[Mutant]:
        for test in node.ifs:
            yield self._replaced("condition", test, "True")

    def _at_return(self, node: ast.Return) -> Iterator[Mutant]:
        if isinstance(node.value, (ast.Compare, ast.BoolOp)):
            for value in ("True", "False"):
                yield self._replaced("returned constant", node.value, value)
        elif isinstance(node.value, ast.BinOp) and type(node.value.op) in CALCULATED:
            yield self._replaced("returned constant", node.value, f"0 * ({self._text(node.value)})")

    def _at_call(self, node: ast.Call) -> Iterator[Mutant]:
        name = _called(node)
        if name in UNSEEN_CALLS:
            return
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        alone = len(node.args) == 1 and not isinstance(
            node.args[0], (ast.Starred, ast.GeneratorExp, ast.ListComp)
        )
        if owner is not None and not (isinstance(owner, ast.Name) and owner.id in MODULES | {"self"}):
            if len(node.args) <= 1:
                yield self._replaced("dropped call", node, f"({self._text(owner)})")
        elif alone and name[:1].islower() and name not in ("len", "range", "enumerate", "iter", "next"):
            yield self._replaced("dropped call", node, f"({self._text(node.args[0])})")
        if name in TAKEN_FOR and (owner is not None or name in ("min", "max", "any", "all")):
            place = self._span(node.func)[1]
            yield Mutant(
                "sibling", node.func.end_lineno or node.lineno, place - len(name), place, TAKEN_FOR[name]
            )
        if len(node.args) >= 2 and name != "isinstance" and all(_is_value(a) for a in node.args[:2]):
            (a, b), (c, d) = self._span(node.args[0]), self._span(node.args[1])
            swapped = self.source[c:d] + self.source[b:c] + self.source[a:b]
            yield Mutant("swapped arguments", node.lineno, a, d, swapped)
        for keyword in node.keywords:
            if keyword.arg and keyword.arg not in UNSEEN_KEYWORDS:
                yield from self._without(node, keyword)

    def _without(self, node: ast.Call, keyword: ast.keyword) -> Iterator[Mutant]:
        """The call without one of its keywords, and the comma before or after it."""
        start, end = self._span(keyword)
        before = self.source[:start].rstrip()
        if before.endswith(","):
            start = len(before) - 1
        elif self.source[end:].lstrip().startswith(","):
            end = self.source.index(",", end) + 1
        yield Mutant("dropped keyword", keyword.lineno, start, end, "")

    def _at_slice(self, node: ast.Slice) -> Iterator[Mutant]:
        for part in (node.lower, node.upper):
            if part is not None:
                yield self._replaced("slice", part, "")


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _counts(node: ast.AST) -> bool:
    """A number of things, where one more or less matters, as it does not for measured values."""
    if isinstance(node, ast.Call):
        return _called(node) in ("len", "dim", "size", "numel")
    return isinstance(node, ast.Attribute) and node.attr in ("ndim", "epoch", "steps")


def _is_value(node: ast.AST) -> bool:
    """What could be taken for another argument; a literal, a list or a network could not."""
    if isinstance(
        node, (ast.Constant, ast.Starred, ast.List, ast.Tuple, ast.ListComp, ast.GeneratorExp, ast.Lambda)
    ):
        return False
    return not (
        isinstance(node, ast.Name)
        and node.id in ("network", "net", "model", "module", "task", "budget", "meter", "self")
    )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _other_value(value: object) -> str:
    """The next whole number, twice the size, the opposite; '' for what stays as it is."""
    if isinstance(value, bool):
        return str(not value)
    if isinstance(value, int):
        return str(value + 1)
    if isinstance(value, float) and abs(value) > 1e-5:
        return repr(value * 2)
    return ""


_WRITTEN = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Is: "is",
    ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
    ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.BitAnd: "&", ast.BitOr: "|",
}  # fmt: skip


def _written(operator: ast.AST) -> str:
    return _WRITTEN[type(operator)]
