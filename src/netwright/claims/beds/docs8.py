"""docs-8: sentences from the docstrings of eight installed libraries; the label is the library.

Real text that is on every machine that can run this: nothing is downloaded, nothing is executed (sources are
parsed, not imported).
"""

from __future__ import annotations

import ast
import importlib.util
import random
import re
from pathlib import Path

from netwright.core.errors import MissingExtra

LIBRARIES = ("torch", "numpy", "scipy", "sklearn", "plotly", "rich", "pymoo", "networkx")


def sentences(per_library: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts and labels (0 to 7), `per_library` of each, distinct, without the library's own name."""
    texts, labels = [], []
    for label, library in enumerate(LIBRARIES):
        found = sorted(_of(library))
        random.Random(seed).shuffle(found)
        if len(found) < per_library:
            raise MissingExtra(library, "dev", "the text data set docs-8")
        texts += found[:per_library]
        labels += [label] * per_library
    return texts, labels


def _of(library: str) -> set[str]:
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        return set()
    found: set[str] = set()
    for path in sorted(Path(spec.origin).parent.rglob("*.py"))[:250]:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found |= _split(ast.get_docstring(node) or "", library)
    return found


def _split(docstring: str, library: str) -> set[str]:
    prose = re.split(r"(?<=[.!?])\s+|\n\s*\n", docstring)
    cleaned = (re.sub(r"\s+", " ", part).strip() for part in prose)
    return {
        text
        for text in cleaned
        if 40 <= len(text) <= 200
        and library not in text.lower()
        and sum(c.isalpha() for c in text) > 0.7 * len(text)
    }
