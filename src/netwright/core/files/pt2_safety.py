"""Does an exported program (.pt2) hold anything that could run code when it is loaded or called?

`torch.export.load` unpickles what an archive declares as pickled, evaluates its size expressions as Python, and
resolves its operators by name from the whole of torch. So an archive is checked first: tensors must be raw or load
with weights_only, expressions must be arithmetic on symbols, operators must be torch's own on tensors and numbers.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import torch

_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|netwright|torch_scatter|torch_sparse)\.\w+\.\w+"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|while_loop|scan)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|pos|and_|or_|eq|ne|lt|le|gt|ge|getitem)"
    r"|torch\.sym_\w+|torch\._sym_sqrt|math\.(trunc|ceil|floor|sqrt)"
)
_EXPRESSION_PARTS = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Call, ast.Name, ast.Constant, ast.keyword,
    ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.Load,
)  # fmt: skip
_EXPRESSION_NAMES = re.compile(
    r"[suz]f?\d+|oo|int_oo|True|False|Symbol|Integer|Rational|Float|Add|Mul|Pow|Mod|Max|Min|Abs|floor|ceiling|"
    r"Eq|Ne|Equality|Unequality|Lt|Le|Gt|Ge|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|And|Or|Not|"
    r"FloorDiv|CleanDiv|CeilDiv|PythonMod|ModularIndexing|Where|IntTrueDiv|FloatTrueDiv|ToFloat|TruncToInt|"
    r"TruncToFloat|CeilToInt|FloorToInt|RoundToInt|PowByNatural|FloatPow|IsNonOverlappingAndDenseIndicator|"
    r"OpaqueUnaryFn_sqrt|sqrt"
)


def suspicion(content: bytes) -> str | None:
    """What in the archive could run code, in words; None if nothing could.

    Raises RuntimeError, or what the parsers raise, where the archive is broken.
    """
    archive = torch._C.PyTorchFileReader(io.BytesIO(content))
    names = archive.get_all_records()
    for name in names:
        if name.startswith("data/aotinductor/"):
            return "compiled code"
        if name.startswith("data/") and name.endswith(".json"):
            found = _payloads(json.loads(archive.get_record(name)))
        elif name.startswith("data/") and name.endswith(".pt"):
            found = None if _is_plain(archive.get_record(name)) else "a pickled object"
        elif name.startswith("models/"):
            found = _program(json.loads(archive.get_record(name)))
        else:
            continue
        if found:
            return found
    return None


def _payloads(config: Any) -> str | None:
    for entry in config.get("config", {}).values():
        if entry.get("use_pickle") or not re.fullmatch(r"(weight|tensor)_\d+", entry.get("path_name", "")):
            return "a pickled object"
    return None


def _is_plain(content: bytes) -> bool:
    if not content:
        return True
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:
        return False
    return True


def _program(program: Any) -> str | None:
    for entry in _dicts(program):
        if "target" in entry and "inputs" in entry and not _is_harmless(str(entry["target"])):
            return f"the operator {str(entry['target'])[:60]}"
        if "expr_str" in entry and not _is_arithmetic(entry["expr_str"]):
            return f"the expression {str(entry['expr_str'])[:60]}"
        if entry.get("as_operator") is not None or entry.get("as_custom_obj") is not None:
            return "an object of its own"
        # the forms of inputs and outputs may name Python types, which are then imported
        if any(isinstance(v, str) and ("__enum__" in v or "default_factory" in v) for v in entry.values()):
            return "a Python type"
    return None


def _is_harmless(target: str) -> bool:
    """One of the listed operators, and none of those among them that open a file, such as aten.from_file."""
    if not _OPERATORS.fullmatch(target):
        return False
    if not target.startswith("torch.ops.") or target.startswith("torch.ops.higher_order."):
        return True
    try:
        schema = attrgetter(target.removeprefix("torch.ops."))(torch.ops)._schema
    except AttributeError:
        return True  # nothing of that name: the loader will say so
    return not any(argument.name == "filename" for argument in schema.arguments)


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _dicts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _dicts(inner)


def _is_arithmetic(text: Any) -> bool:
    """Numbers, symbols, and the functions that torch writes in its size expressions."""
    try:
        tree = ast.parse(str(text), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for part in ast.walk(tree):
        if not isinstance(part, _EXPRESSION_PARTS):
            return False
        if isinstance(part, ast.Name) and not _EXPRESSION_NAMES.fullmatch(part.id):
            return False
        if isinstance(part, ast.Constant) and not re.fullmatch(r"[\w.]+", str(part.value)):
            return False
    return True
