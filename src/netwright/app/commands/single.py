"""`netwright compress MODEL --method SLUG ...` and its sisters: one method, on one network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from netwright.app.commands.options import TASK, BudgetText, Json, Seed, opens, print_json, settings
from netwright.app.commands.start import began

GOALS = {
    "compress": "Make a network smaller or faster with one method.",
    "inspect": "Look inside a network: profile, similarity of layers. Without a task, what needs no data.",
    "explain": "Why this output: heat maps for images of a task.",
    "verify": "What can be proved, or broken, within a radius around the inputs.",
    "calibrate": "Make a network's probabilities honest.",
    "adapt": "Use a network for another job.",
    "train": "Train a network in an unusual way.",
    "search": "Find the front of accuracy and latency.",
}


def add(app: typer.Typer) -> None:
    for goal, text in GOALS.items():
        _add_goal(app, goal, text)


def _add_goal(app: typer.Typer, goal: str, text: str) -> None:
    """The commands differ in the goal only."""

    def command(
        opening: dict[str, Any],
        model: Annotated[str | None, typer.Argument(help=".onnx, .pt2 or package.module:function.")] = None,
        task: Annotated[str | None, TASK] = None,
        method: Annotated[str | None, typer.Option("--method", help="Slug of the method.")] = None,
        set_: Annotated[
            list[str] | None,
            typer.Option("--set", help="A method's own setting, name=value. Repeatable."),
        ] = None,
        budget: BudgetText = "5m",
        seed: Seed = 0,
        out: Annotated[
            Path | None, typer.Option(help="Folder for what it writes; none writes nothing.")
        ] = None,
        radius: Annotated[
            float | None,
            typer.Option("--radius", min=0, help="verify: the L-infinity radius around inputs."),
        ] = None,
        json_: Json = False,
    ) -> None:
        moment = began()
        from netwright.app import one, screen
        from netwright.app.clock import Clock
        from netwright.core.budget import parse_seconds

        with screen.open_screen(quiet=json_) as view:
            result = one.run(
                goal, method, model, task, Clock(parse_seconds(budget), moment), settings=settings(set_), seed=seed,
                out=out, view=view, radius=radius, **opening,
            )  # fmt: skip
        if json_:
            print_json(result)

    command.__doc__ = text
    app.command(goal)(opens(command))
