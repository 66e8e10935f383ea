"""What belongs to a method: the files that hold its idea, and the tests that answer for them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.mutants.sites import mutants

from netwright.core import catalogue
from netwright.core.catalogue import Method

CONFORMANCE = Path("tests/conformance/test_conformance.py")
FEW = 100  # a method with fewer possible faults than this answers for what it shares with others, too


@dataclass(frozen=True)
class Subject:
    """Paths from the root of the repository. files: what is changed. tests: test files, the conformance suite last."""

    slug: str
    files: tuple[Path, ...]
    tests: tuple[Path, ...]


def subject(root: Path, slug: str) -> Subject:
    """The row's module, and the files of its goal that it alone needs; where they are short, the shared ones too."""
    row = catalogue.method(slug)
    module = _module(row)
    others = {_module(m) for m in catalogue.methods().values()} - {module}
    needed = _needs(root, module, others)
    shared = set().union(*(_needs(root, other, {module}) for other in others))
    files = [_file(root, m) for m in (module, *(n for n in needed if n not in shared))]
    if sum(len(mutants((root / f).read_text(encoding="utf-8"))) for f in files) < FEW:
        files += [_file(root, m) for m in needed if m in shared]
    return Subject(slug, tuple(files), tests_of(root, row, tuple(files)))


def tests_of(root: Path, row: Method, files: tuple[Path, ...]) -> tuple[Path, ...]:
    """Of the tests beside the method: those of its name, and those that import one of the files."""
    package = _module(row).split(".")[1:-1]
    folder = root / "tests" / package[0]
    modules = {_name(f) for f in files}
    named = {f"test_{row.slug.replace('-', '_')}.py", *(f"test_{m.rpartition('.')[2]}.py" for m in modules)}
    found = [
        path.relative_to(root)
        for path in sorted(folder.rglob("test_*.py"))
        if path.name in named or modules & _imports(path)
    ]
    return (*found, CONFORMANCE)


def _module(row: Method) -> str:
    return row.path.partition(":")[0]


def _file(root: Path, module: str) -> Path:
    path = Path("src", *module.split("."))
    return path / "__init__.py" if (root / path).is_dir() else path.with_suffix(".py")


def _name(file: Path) -> str:
    parts = file.with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _needs(root: Path, module: str, methods: set[str]) -> list[str]:
    """Modules of the same goal that a module imports, directly or not, but not through other methods."""
    goal = ".".join(module.split(".")[:2])
    found: list[str] = []
    waiting = [module]
    while waiting:
        path = root / _file(root, waiting.pop())
        inside = path.parent.glob("*.py") if path.name == "__init__.py" else []
        for name in sorted({*(_name(f.relative_to(root)) for f in inside), *_imports(path)}):
            if not name.startswith(goal + ".") or name in {module, *found, *methods}:
                continue
            if (root / _file(root, name)).is_file():
                found.append(name)
                waiting.append(name)
    return found


@cache
def _imports(path: Path) -> frozenset[str]:
    """Full names of everything that a file imports; of `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)
