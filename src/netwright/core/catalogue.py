"""The one list of every method, read from catalogue/<goal>.toml. Reading it imports no method and no torch."""

from __future__ import annotations

import importlib
import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from netwright.core.errors import UnknownName

GOALS = (
    "compress", "inspect", "explain", "verify", "calibrate", "adapt", "train", "search", "domains", "models",
)  # fmt: skip
CONTRACTS = (
    "Transform", "Analysis", "Explainer", "Verifier", "Searcher", "Predictor", "Estimator", "Model", "Engine",
    "Simulator",
)  # fmt: skip


@dataclass(frozen=True)
class Method:
    """One row of catalogue/<goal>.toml, a `[[method]]` there. `path` is 'package.module:Class'; `settings` are the
    fields that this row sets.

    slug: that of its specification, in kebab case. summary: one sentence for a person who chooses. paper: title; venue:
    arXiv id or where it appeared. needs: extras. serves: what it works on, in words.
    improve: its place in the order in which `netwright improve` tries methods by default; 0: it does not.
    also: settings of a second trial by `improve`, where inputs are images and the budget is not short.
    trains: whether it spends its budget on training (one that does not is done in moments).
    at_zero: of a method with a strength, the one that it becomes without any (default: no change at all).
    networks: how many networks an Analysis compares.
    """

    slug: str
    name: str
    goal: str
    contract: str
    path: str
    summary: str
    paper: str = ""
    venue: str = ""
    year: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    serves: str = ""
    improve: int = 0
    also: dict[str, Any] = field(default_factory=dict)
    trains: bool = True
    at_zero: str = ""
    networks: int = 1

    def load(self) -> Any:
        """The class that does the work (imports its module now)."""
        module, _, name = self.path.partition(":")
        return getattr(importlib.import_module(module), name)

    def build(self, **settings: Any) -> Any:
        """The method with this row's settings, overridden by those given."""
        return self.load()(**{**self.settings, **settings})


@cache
def methods() -> dict[str, Method]:
    """All methods by slug: goal by goal, in the order of the files."""
    listed = [row for goal in GOALS for row in _rows(goal)]
    return {m.slug: m for m in listed}


def _rows(goal: str) -> list[Method]:
    text = files("netwright").joinpath("catalogue", f"{goal}.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text).get("method", [])
    return [Method(goal=goal, **{**row, "needs": tuple(row.get("needs", ()))}) for row in rows]


def method(slug: str) -> Method:
    """One method; an unknown slug is an error that offers the nearest."""
    known = methods()
    if slug not in known:
        raise UnknownName("method", slug, known, "`netwright methods` lists them.")
    return known[slug]


def of_goal(goal: str) -> list[Method]:
    """The methods of one goal."""
    if goal not in GOALS:
        raise UnknownName("goal", goal, GOALS)
    return [m for m in methods().values() if m.goal == goal]


def search(words: str) -> list[Method]:
    """Methods whose name, slug, paper or summary hold every word."""
    wanted = words.lower().split()
    return [
        m
        for m in methods().values()
        if all(w in f"{m.slug} {m.name} {m.paper} {m.summary} {m.venue}".lower() for w in wanted)
    ]
