"""Lay out the four files of a new method, so that its author begins with the shape that the house expects."""

from __future__ import annotations

import re
from pathlib import Path

from netwright.core import catalogue
from netwright.core.errors import BadInput, UnknownName

_CONTRACT = {
    "compress": ("Transform", "network: nn.Module, task: Task, budget: Budget", "nn.Module"),
    "calibrate": ("Transform", "network: nn.Module, task: Task, budget: Budget", "nn.Module"),
    "adapt": ("Transform", "network: nn.Module, task: Task, budget: Budget", "nn.Module"),
    "train": ("Transform", "network: nn.Module, task: Task, budget: Budget", "nn.Module"),
    "inspect": ("Analysis", "network: nn.Module, data: Split", "Finding"),
    "explain": (
        "Explainer",
        "network: nn.Module, inputs: Inputs, target: Tensor | None = None",
        "Explanation",
    ),
    "verify": ("Verifier", "network: nn.Module, property: Box, budget: Budget", "Verdict"),
    "search": ("Searcher", "space: Space, task: Task, budget: Budget", "Sequence[Candidate]"),
}
_IMPORTS = {
    "Transform": "from torch import nn\n\nfrom netwright.core.budget import Budget\n"
    "from netwright.core.errors import NotApplicable\nfrom netwright.core.task import Task",
    "Analysis": "from torch import nn\n\nfrom netwright.core.contracts import Finding\n"
    "from netwright.core.errors import NotApplicable\nfrom netwright.core.split import Split",
    "Explainer": "from torch import Tensor, nn\n\nfrom netwright.core.contracts import Explanation\n"
    "from netwright.core.errors import NotApplicable\nfrom netwright.core.network import Inputs",
    "Verifier": "from torch import nn\n\nfrom netwright.core.budget import Budget\n"
    "from netwright.core.contracts import Box, Verdict\nfrom netwright.core.errors import NotApplicable",
    "Searcher": "from collections.abc import Sequence\n\nfrom netwright.core.budget import Budget\n"
    "from netwright.core.contracts import Candidate, Space\nfrom netwright.core.errors import NotApplicable\n"
    "from netwright.core.task import Task",
}

_MODULE = '''"""TITLE OF THE PAPER (arXiv ...)."""

from __future__ import annotations

from dataclasses import dataclass

{imports}


@dataclass(frozen=True)
class {kind}:
    """What it does, in two sentences. Shapes, units, errors; where we differ from the paper.

    One line per field: what it is, the paper's default.
    """

    seed: int = 0

    def __call__(self, {arguments}) -> {gives}:
        raise NotApplicable("{slug} is laid out, not written")
'''

_ROW = """
[[method]]
slug = "{slug}"
name = "{name}"
goal = "{goal}"
contract = "{contract}"
path = "netwright.{goal}.{module}:{kind}"
summary = "One sentence for a person who chooses."
paper = ""
venue = ""
year = {year}
"""

_TEST = '''"""{slug} against a closed form, brute force, a peer, or a property that only the real one has."""

from netwright.{goal}.{module} import {kind}


def test_it_agrees_with_an_independent_reference():
    raise AssertionError("write the reference that a wrong {kind} would fail")
'''

_CLAIM = '''"""What the paper of {slug} says, measured here."""

from __future__ import annotations

from typing import Any

from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean

CLAIM = Claim(
    slug="{slug}",
    paper="what the paper says, with its figure",
    setting="network, data, budget and seeds of the quick scale, in words",
    # fixed before the run; a bed that cannot show the effect says nothing about the method
    rule=Rule(
        holds=(Part("accuracy: ours less baseline", "above"),),
        bed=(Part("accuracy of baseline", "at least", 0.9),),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    """A row per arm and seed: method and baselines on the same network, data and budget."""
    raise SystemExit("{slug}: the claim is laid out, not written")


def judge(rows: list[dict[str, Any]]) -> Measured:
    """The figures that the rule looks at, from the rows alone."""
    figures = differences(rows, "ours", ("baseline",), ("accuracy",))
    return Measured("one sentence", figures, bed={{"accuracy of baseline": mean(rows, "baseline", "accuracy")}})
'''


def lay_out(slug: str, goal: str, root: Path) -> list[Path]:
    """Write module, test and claim, and append the catalogue row. Refuses to overwrite anything."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug):
        raise BadInput(f"'{slug}' is no slug: write it in kebab case, such as rank-mixup")
    if goal not in _CONTRACT:
        raise UnknownName("goal with a layout", goal, _CONTRACT, f"One of {', '.join(_CONTRACT)}.")
    if slug in catalogue.methods():
        raise BadInput(f"'{slug}' is in the catalogue already")
    source = root / "src" / "netwright"
    if not (source / "catalogue.toml").is_file():
        raise BadInput(f"{root.resolve()} is no checkout of netwright: run this at its root or give --root")
    contract, arguments, gives = _CONTRACT[goal]
    module = slug.replace("-", "_")
    words = {
        "slug": slug, "goal": goal, "module": module, "contract": contract, "arguments": arguments, "gives": gives,
        "kind": "".join(part.capitalize() for part in slug.split("-")), "name": slug.replace("-", " ").capitalize(),
        "imports": _IMPORTS[contract], "year": 2026,
    }  # fmt: skip
    files = {
        source / goal / f"{module}.py": _MODULE,
        root / "tests" / goal / f"test_{module}.py": _TEST,
        source / "claims" / goal / f"{module}.py": _CLAIM,
    }
    for path in files:
        if path.exists():
            raise BadInput(f"{path} exists already")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(**words), encoding="utf-8")
    with (source / "catalogue.toml").open("a", encoding="utf-8") as listed:
        listed.write(_ROW.format(**words))
    return [*files, source / "catalogue.toml"]
