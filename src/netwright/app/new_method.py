"""Lay out the files of a new method, so that its author begins with the shape that the house expects.

What is laid out works: it does the smallest thing that its contract allows, and is replaced by what the paper says. Its
test fails until a reference is written, and its claim until it is measured.
"""

from __future__ import annotations

import re
from datetime import date
from functools import partial
from pathlib import Path
from string import Template

from netwright.core import catalogue
from netwright.core.errors import BadInput, UnknownName

CONTRACT = {
    "compress": "Transform", "calibrate": "Transform", "adapt": "Transform", "train": "Transform",
    "inspect": "Analysis", "explain": "Explainer", "verify": "Verifier", "search": "Searcher", "models": "Model",
    "domains": "Estimator",
}  # fmt: skip
_TEMPLATES = Path(__file__).parent / "templates" / "method"
_SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def lay_out(slug: str, goal: str, root: Path) -> list[Path]:
    """Write module, test and claim, and append the catalogue row. Refuses to overwrite anything.

    goal: of a domain with its name, 'domains/wireless'; a new domain gets its package and its data for the
    conformance suite, too.
    """
    goal, _, domain = goal.partition("/")
    if not _SLUG.fullmatch(slug):
        raise BadInput(f"'{slug}' is no slug: write it in kebab case, such as rank-mixup")
    if goal not in CONTRACT:
        raise UnknownName("goal", goal, CONTRACT, f"One of {', '.join(CONTRACT)}.")
    if (goal == "domains") != bool(domain) or (domain and not domain.isidentifier()):
        raise BadInput("a domain is named with its goal, and no other goal has any: --goal domains/wireless")
    if slug in catalogue.methods():
        raise BadInput(f"'{slug}' is in the catalogue already")
    source = root / "src" / "netwright"
    listed = source / "catalogue" / f"{goal}.toml"
    if not listed.is_file():
        raise BadInput(f"{root.resolve()} is no checkout of netwright: run this at its root or give --root")
    module = slug.replace("-", "_")
    fill = partial(
        _filled, slug=slug, module=module, contract=CONTRACT[goal], domain=domain,
        package=f"{goal}.{domain}" if domain else goal, kind="".join(part.capitalize() for part in slug.split("-")),
        name=slug.replace("-", " ").capitalize(), year=date.today().year,
    )  # fmt: skip
    folder = Path(goal, domain)
    files = {
        source / folder / f"{module}.py": fill(CONTRACT[goal]),
        root / "tests" / folder / f"test_{module}.py": fill("test"),
        source / "claims" / goal / f"{module}.py": fill("claim"),
    }
    for path in files:
        if path.exists():
            raise BadInput(f"{path} exists already")
    if domain:
        data = root / "tests" / "conformance" / "domains" / f"{domain}.py"
        new = {data: fill("domain"), source / folder / "__init__.py": ""}
        files |= {path: text for path, text in new.items() if not path.exists()}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with listed.open("a", encoding="utf-8") as file:
        file.write(fill("row"))
    return [*files, listed]


def _filled(template: str, **words: object) -> str:
    return Template((_TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")).substitute(words)
