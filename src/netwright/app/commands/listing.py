"""What is at hand: `netwright methods`, `method`, `claims`, `beds`, `data`, `models`, `new-method`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netwright.app.commands.options import Json


def add(app: typer.Typer) -> None:
    for command in (methods, method, claims, beds, data, models, new_method):
        app.command()(command)


def methods(
    goal: Annotated[str | None, typer.Option(help="Only this goal.")] = None,
    search: Annotated[str | None, typer.Option(help="Only methods that hold all these words.")] = None,
    json_: Json = False,
) -> None:
    """The catalogue: every method, by goal."""
    from netwright.app import lists

    if not lists.methods(goal, search, json_):
        raise typer.Exit(1)


def method(slug: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """One method's card: what it does, its paper, its settings, its claim."""
    from netwright.app import lists

    lists.card(slug, json_)


def claims(
    slugs: Annotated[
        list[str] | None, typer.Argument(help="Which; none shows all committed results.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="The scale for a GPU or a long run.")] = False,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="As many as the claim asks for, unless told.")
    ] = None,
    device: Annotated[str, typer.Option()] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("docs/claims"),
    judge: Annotated[
        bool, typer.Option("--judge", help="Apply today's statistics and rule to the rows in the folder.")
    ] = False,
    json_: Json = False,
) -> None:
    """Re-measure what a paper says, next to its baselines."""
    from netwright.app import lists

    lists.claims(slugs or [], full, seeds or 0, device, out, judge, json_)


def beds(
    names: Annotated[list[str] | None, typer.Argument(help="Which; none means all converged ones.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Networks of each, that differ in their seed.")] = 3,
    device: Annotated[str, typer.Option(help="Where to train.")] = "cpu",
    list_: Annotated[bool, typer.Option("--list", help="Show what is there; train nothing.")] = False,
    json_: Json = False,
) -> None:
    """Train the networks that claims share, once per machine; stop at any time, the same command goes on."""
    from netwright.app import beds as shared

    shared.beds(names or [], seeds, device, list_, json_)


def data(
    action: Annotated[str | None, typer.Argument(help="'get' to fetch, or nothing to list.")] = None,
    name: Annotated[str | None, typer.Argument(help="Which data set.")] = None,
    json_: Json = False,
) -> None:
    """The data sets at hand; `netwright data get NAME` fetches one from its official source."""
    from netwright.app import lists

    lists.data(action, name, json_)


def models(json_: Json = False) -> None:
    """The architectures that can be built by name."""
    from netwright.app import lists

    lists.models(json_)


def new_method(
    slug: Annotated[str, typer.Argument(help="In kebab case.")],
    goal: Annotated[str, typer.Option("--goal", help="compress, inspect, ..., domains/wireless.")],
    root: Annotated[Path, typer.Option(help="Root of the checkout.")] = Path("."),
) -> None:
    """Lay out the four files of a new method: module, catalogue row, test, claim."""
    from netwright.app.new_method import lay_out

    for path in lay_out(slug, goal, root):
        typer.echo(path)
