"""`netwright improve` and `netwright compare`: many methods, tried side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from netwright.app.commands.options import (
    TASK,
    Batch,
    BudgetText,
    Device,
    Json,
    Methods,
    Model,
    Ray,
    Seed,
    Threads,
    opens,
    print_json,
    slugs,
)
from netwright.app.commands.start import began, start_workers


def add(app: typer.Typer) -> None:
    app.command()(opens(improve))
    app.command()(opens(compare))


def improve(
    opening: dict[str, Any],
    model: Model = None,
    task: Annotated[str, TASK] = "digits",
    faster: Annotated[
        float | None, typer.Option(help="At least so many times faster in ONNX Runtime.")
    ] = None,
    smaller: Annotated[float | None, typer.Option(help="At least so many times fewer bytes.")] = None,
    max_drop: Annotated[
        str, typer.Option(help="At most so much lost: 1% or 0.01 of accuracy (one point), 0.01 of R2.")
    ] = "1%",
    budget: BudgetText = "5m",
    methods: Methods = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the files that it writes.")] = Path("netwright-out"),
    batch: Batch = 1,
    threads: Threads = 1,
    device: Device = "cpu",
    no_history: Annotated[
        bool,
        typer.Option("--no-history", help="Neither read nor keep which methods won on similar networks."),
    ] = False,
    ray: Ray = None,
    json_: Json = False,
) -> None:
    """The main job: measure a network, try methods side by side, apply the winner, export, report."""
    moment = began()
    start_workers(ray)
    from netwright.app import improve as job
    from netwright.app import screen
    from netwright.app.clock import Clock
    from netwright.app.deployment import Deployment
    from netwright.core.budget import Target, parse_fraction, parse_seconds

    if faster is None and smaller is None:
        faster = 2.0
    wanted = Target(faster, smaller, parse_fraction(max_drop))
    with screen.open_screen(quiet=json_) as view:
        result = job.run(
            model, task, wanted, clock=Clock(parse_seconds(budget), moment), methods=slugs(methods), seed=seed,
            out=out, view=view, ray=ray, deployment=Deployment(batch, threads), device=device,
            use_history=not no_history, **opening,
        )  # fmt: skip
    if json_:
        print_json(result.to_json())
    raise typer.Exit(0 if result.met else 1)


def compare(
    opening: dict[str, Any],
    goal: Annotated[
        str, typer.Argument(help="compress, calibrate, explain, inspect, verify, train or adapt.")
    ],
    model: Model = None,
    task: Annotated[str, TASK] = "digits",
    methods: Methods = None,
    radius: Annotated[
        float | None, typer.Option("--radius", min=0, help="verify: the L-infinity radius around inputs.")
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", help="Time for the whole command, every method the same.")
    ] = "5m",
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for study.db, report.html and compare.json.", show_default="netwright-out/GOAL"
        ),
    ] = None,
    batch: Batch = 1,
    threads: Threads = 1,
    device: Device = "cpu",
    ray: Ray = None,
    json_: Json = False,
) -> None:
    """Every method of a goal, side by side, on one budget."""
    moment = began()
    start_workers(ray)
    from netwright.app import screen
    from netwright.app.clock import Clock
    from netwright.app.compare import TEACHING, deployment_for, open_runner
    from netwright.app.compare import compare as job
    from netwright.app.feeding.opening import open_subject
    from netwright.core import catalogue
    from netwright.core.budget import Budget, parse_seconds

    catalogue.of_goal(goal)  # a wrong one ends it before any work
    clock = Clock(parse_seconds(budget), moment)
    out = out or Path("netwright-out") / goal  # beside what improve writes, and apart from other goals
    deployment_for(goal, batch, threads, device)
    runner = open_runner(f"ray:{ray}" if ray else "processes", device)
    opening["as_it_is"] = opening["as_it_is"] or goal in TEACHING
    with screen.open_screen(quiet=json_) as view, clock.command():
        view.clock = clock
        with clock.opening():
            subject = open_subject(model, task, seed, out, view, device=device, **opening)
        subject.warn(view)
        result = job(
            goal, subject.network, subject.task, Budget(seconds=clock.seconds), methods=slugs(methods), radius=radius,
            seed=seed, path=out, quiet=json_, runner=runner, clock=clock,
            seen=subject.seen, batch=batch, threads=threads, device=device,
            as_it_is=True,  # it has been looked at
        )  # fmt: skip
        view.show(result)
    if json_:
        print_json(result.to_json())
