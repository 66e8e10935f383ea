"""A method's settings as text gives them (`--set name=value`), held against the types of its fields."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from netwright.core import catalogue
from netwright.core.errors import BadInput

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): ""}
_SEEDS = range(2**31)  # what every generator takes


def checked(method: catalogue.Method, given: dict[str, Any]) -> dict[str, Any]:
    """The settings with lists as tuples; BadInput for a name that the method lacks or a value of another type."""
    kind = method.load()
    names = [f.name for f in dataclasses.fields(kind)]
    wrong = sorted(set(given) - set(names))
    if wrong:
        raise BadInput(
            f"{method.slug} has no setting '{wrong[0]}'; it has {', '.join(sorted(names)) or 'none'}"
        )
    hints = get_type_hints(kind)
    return {name: _checked(method.slug, name, value, hints[name]) for name, value in given.items()}


def _checked(slug: str, name: str, value: Any, hint: Any) -> Any:
    wanted = "from 0 to 2147483647" if name == "seed" else words(hint)
    if not wanted:
        raise BadInput(f"{slug}: the setting '{name}' cannot be given as text; set it from Python")
    try:
        value = fitted(value, hint)
        if name == "seed" and value not in _SEEDS:
            raise TypeError
    except TypeError:
        raise BadInput(f"{slug}: the setting '{name}' must be {wanted}, got {value!r}") from None
    return value


def fitted(value: Any, hint: Any) -> Any:
    """The value as the type wants it (a list becomes a tuple); TypeError where it is none of that type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for part in parts:
            try:
                return fitted(value, part)
            except TypeError:
                continue
    elif origin is Literal:
        if value in parts:
            return value
    elif origin is tuple:
        if isinstance(value, list):
            inner = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
            if len(inner) == len(value):
                return tuple(fitted(v, part) for v, part in zip(value, inner, strict=True))
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise TypeError


def words(hint: Any) -> str:
    """A type in words, '' for one that text cannot give."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(filter(None, map(words, parts)))
    if origin is Literal:
        return "one of " + ", ".join(map(str, parts))
    if origin is tuple:
        inner = words(parts[0])
        count = "" if parts[-1] is Ellipsis else f" of length {len(parts)}"
        return f"a list in brackets{count}, each {inner}" if inner else ""
    return _WORDS.get(hint, "")
