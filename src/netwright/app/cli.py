"""The command line. Nothing heavy is imported before a command needs it.

Exit codes: 0 done, 1 the answer is no, 2 bad use or bad input, 130 interrupted.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from netwright.core.errors import BadInput, NetwrightError

app = typer.Typer(
    name="netwright",
    help="Which published method actually helps MY network? Try them, apply the winner, keep the evidence.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for machines.")]
TaskName = Annotated[
    str,
    typer.Option(
        "--task", help="A name (`netwright data`) or a path: .npz, image folder, zip, CSV, Parquet."
    ),
]
Target = Annotated[
    str | None, typer.Option("--target", help="Column to predict, for a CSV or Parquet table.")
]
Size = Annotated[
    str | None, typer.Option("--size", help="Bring pictures to this size: 32 or 32x48 (height x width).")
]
Unseen = Annotated[
    str | None,
    typer.Option("--unseen", help="Rows of the same form that the network has not seen: they judge it."),
]
Missing = Annotated[
    str | None,
    typer.Option("--missing", help="Missing values of a table: median fills them, drop leaves rows out."),
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", help="A table's numbers in your network's order: 'age,sex=male,sex=female'."),
]
Drop = Annotated[str | None, typer.Option("--drop", help="Columns of a table to leave out, comma-separated.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Use at most so many training examples.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1)]
BudgetText = Annotated[str, typer.Option("--budget", help="Time for the whole command: 90s, 5m, 1h.")]
Trust = Annotated[bool, typer.Option("--trust-pickle", help="Load pickled objects, which can run code.")]
AsItIs = Annotated[
    bool, typer.Option("--as-it-is", help="Feed the network as the data are, however badly it scores so.")
]
State = Annotated[
    Path | None, typer.Option("--state", help="Weights for a package.module:function (safetensors).")
]
Methods = Annotated[
    str | None, typer.Option("--methods", help="Comma-separated slugs (`netwright methods`).")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A method's own setting, name=value. Repeatable.")
]
Radius = Annotated[
    float | None, typer.Option("--radius", min=0, help="verify: the L-infinity radius around inputs.")
]
Ray = Annotated[
    str | None, typer.Option("--ray", help="Run the trials on a Ray cluster: its address, or 'local'.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from netwright import __version__

        typer.echo(f"netwright {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def front(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def improve(
    model: Annotated[
        str | None, typer.Argument(help=".onnx, .pt2 or package.module:function; none trains one.")
    ] = None,
    task: TaskName = "digits",
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
    target: Target = None,
    drop: Drop = None,
    columns: Columns = None,
    missing: Missing = None,
    unseen: Unseen = None,
    size: Size = None,
    limit: Limit = None,
    state: State = None,
    trust_pickle: Trust = False,
    as_it_is: AsItIs = False,
    ray: Ray = None,
    json_: Json = False,
) -> None:
    """The main job: measure a network, try methods side by side, apply the winner, export, report."""
    began = _began()
    _start_workers(ray)
    from netwright.app import improve as job
    from netwright.app import screen
    from netwright.app.clock import Clock
    from netwright.core.budget import Target as Wanted
    from netwright.core.budget import parse_fraction, parse_seconds

    if faster is None and smaller is None:
        faster = 2.0
    wanted = Wanted(faster, smaller, parse_fraction(max_drop))
    with screen.open_screen(quiet=json_) as view:
        result = job.run(
            model, task, wanted, clock=Clock(parse_seconds(budget), began), methods=_list(methods), seed=seed,
            out=out, view=view, task_options=_options(
                target=target, drop=drop, columns=columns, missing=missing, unseen=unseen, size=size, limit=limit
            ),
            state=state, trust_pickle=trust_pickle, ray=ray, as_it_is=as_it_is,
        )  # fmt: skip
    if json_:
        _print_json(result.to_json())
    raise typer.Exit(0 if result.met else 1)


@app.command()
def compare(
    goal: Annotated[
        str, typer.Argument(help="compress, calibrate, explain, inspect, verify, train or adapt.")
    ],
    model: Annotated[
        str | None, typer.Argument(help=".onnx, .pt2 or package.module:function; none trains one.")
    ] = None,
    task: TaskName = "digits",
    methods: Methods = None,
    radius: Radius = None,
    budget: Annotated[
        str, typer.Option("--budget", help="Time for the whole command, every method the same.")
    ] = "5m",
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for study.db, report.html and compare.json.")] = Path(
        "netwright-out"
    ),
    target: Target = None,
    drop: Drop = None,
    columns: Columns = None,
    missing: Missing = None,
    unseen: Unseen = None,
    size: Size = None,
    limit: Limit = None,
    state: State = None,
    trust_pickle: Trust = False,
    as_it_is: AsItIs = False,
    ray: Ray = None,
    json_: Json = False,
) -> None:
    """Every method of a goal, side by side, on one budget."""
    began = _began()
    _start_workers(ray)
    from netwright.app import screen
    from netwright.app.clock import Clock
    from netwright.app.compare import TEACHING
    from netwright.app.compare import compare as job
    from netwright.app.opening import open_subject
    from netwright.core.budget import Budget, parse_seconds

    clock = Clock(parse_seconds(budget), began)
    with screen.open_screen(quiet=json_) as view, clock.command():
        view.clock = clock
        with clock.opening():
            subject = open_subject(
                model, task, seed, out, view,
                task_options=_options(
                    target=target, drop=drop, columns=columns, missing=missing, unseen=unseen, size=size, limit=limit
                ),
                state=state, trust_pickle=trust_pickle, as_it_is=as_it_is or goal in TEACHING,
            )  # fmt: skip
        subject.warn(view)
        result = job(
            goal, subject.network, subject.task, Budget(seconds=clock.seconds), methods=_list(methods), radius=radius,
            seed=seed, path=out, quiet=json_, runner=f"ray:{ray}" if ray else "processes", clock=clock,
            seen=subject.seen,
            as_it_is=True,  # it has been looked at
        )  # fmt: skip
        view.show(result)
    if json_:
        _print_json(result.to_json())


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="An .onnx or .pt2 file that improve or export wrote.")],
    data: Annotated[str, typer.Argument(help="CSV, TSV, Parquet, a picture, a folder or zip of them, .npz.")],
    out: Annotated[Path | None, typer.Option(help="CSV file for all predictions.")] = None,
    target: Annotated[
        str | None, typer.Option(help="Column (or array) that holds the truth, if it has another name.")
    ] = None,
    json_: Json = False,
) -> None:
    """Run a file on raw data: text and pictures become numbers as the file itself says."""
    from netwright.app import screen
    from netwright.app.predict import run

    with screen.open_screen(quiet=json_) as view:
        found = run(file, data, out, target, view)
    if json_:
        _print_json(found.to_json())


def _goal_command(goal: str, text: str) -> None:
    """`netwright compress MODEL --method SLUG ...` and its sisters differ in the goal only."""

    def command(
        model: Annotated[str | None, typer.Argument(help=".onnx, .pt2 or package.module:function.")] = None,
        task: Annotated[str | None, TaskName.__metadata__[0]] = None,
        method: Annotated[str | None, typer.Option("--method", help="Slug of the method.")] = None,
        set_: Settings = None,
        budget: BudgetText = "5m",
        seed: Seed = 0,
        out: Annotated[
            Path | None, typer.Option(help="Folder for what it writes; none writes nothing.")
        ] = None,
        target: Target = None,
        drop: Drop = None,
        columns: Columns = None,
        missing: Missing = None,
        unseen: Unseen = None,
        size: Size = None,
        limit: Limit = None,
        state: State = None,
        trust_pickle: Trust = False,
        as_it_is: AsItIs = False,
        radius: Radius = None,
        json_: Json = False,
    ) -> None:
        began = _began()
        from netwright.app import one, screen
        from netwright.app.clock import Clock
        from netwright.core.budget import parse_seconds

        with screen.open_screen(quiet=json_) as view:
            result = one.run(
                goal, method, model, task, Clock(parse_seconds(budget), began), settings=_settings(set_), seed=seed,
                out=out, view=view,
                task_options=_options(
                    target=target, drop=drop, columns=columns, missing=missing, unseen=unseen, size=size, limit=limit
                ),
                state=state, trust_pickle=trust_pickle, radius=radius, as_it_is=as_it_is,
            )  # fmt: skip
        if json_:
            _print_json(result)

    command.__doc__ = text
    app.command(goal)(command)


for _goal, _text in {
    "compress": "Make a network smaller or faster with one method.",
    "inspect": "Look inside a network: profile, similarity of layers. Without a task, what needs no data.",
    "explain": "Why this output: heat maps for images of a task.",
    "verify": "What can be proved, or broken, within a radius around the inputs.",
    "calibrate": "Make a network's probabilities honest.",
    "adapt": "Use a network for another job.",
    "train": "Train a network in an unusual way.",
    "search": "Find the front of accuracy and latency.",
}.items():
    _goal_command(_goal, _text)


@app.command("methods")
def methods_(
    goal: Annotated[str | None, typer.Option(help="Only this goal.")] = None,
    search: Annotated[str | None, typer.Option(help="Only methods that hold all these words.")] = None,
    json_: Json = False,
) -> None:
    """The catalogue: every method, by goal."""
    from netwright.app import lists

    if not lists.methods(goal, search, json_):
        raise typer.Exit(1)


@app.command("method")
def method_(slug: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """One method's card: what it does, its paper, its settings, its claim."""
    from netwright.app import lists

    lists.card(slug, json_)


@app.command()
def claims(
    slugs: Annotated[
        list[str] | None, typer.Argument(help="Which; none shows all committed results.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="The scale for a GPU or a long run.")] = False,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    device: Annotated[str, typer.Option()] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("docs/claims"),
    judge: Annotated[
        bool, typer.Option("--judge", help="Apply today's statistics and rule to the rows in the folder.")
    ] = False,
    json_: Json = False,
) -> None:
    """Re-measure what a paper says, next to its baselines."""
    from netwright.app import lists

    lists.claims(slugs or [], full, seeds, device, out, judge, json_)


@app.command()
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


@app.command()
def data(
    action: Annotated[str | None, typer.Argument(help="'get' to fetch, or nothing to list.")] = None,
    name: Annotated[str | None, typer.Argument(help="Which data set.")] = None,
    json_: Json = False,
) -> None:
    """The data sets at hand; `netwright data get NAME` fetches one from its official source."""
    from netwright.app import lists

    lists.data(action, name, json_)


@app.command()
def models(json_: Json = False) -> None:
    """The architectures that can be built by name."""
    from netwright.app import lists

    lists.models(json_)


@app.command("new-method")
def new_method(
    slug: Annotated[str, typer.Argument(help="In kebab case.")],
    goal: Annotated[str, typer.Option("--goal", help="compress, inspect, explain, ...")],
    root: Annotated[Path, typer.Option(help="Root of the checkout.")] = Path("."),
) -> None:
    """Lay out the four files of a new method: module, catalogue row, test, claim."""
    from netwright.app.new_method import lay_out

    for path in lay_out(slug, goal, root):
        typer.echo(path)


def _list(text: str | None) -> list[str] | None:
    """The slugs of --methods, each once."""
    if text is None:
        return None
    slugs = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not slugs:
        raise BadInput("--methods names no method. `netwright methods` lists them.")
    return slugs


def _options(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _settings(pairs: list[str] | None) -> dict[str, Any]:
    """name=value, the value read as TOML where it is TOML, else as text."""
    import tomllib

    settings: dict[str, Any] = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign:
            raise BadInput(f"--set {pair} is no name=value")
        try:
            settings[name.strip()] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            settings[name.strip()] = value
    return settings


def _print_json(document: Any) -> None:
    import json

    typer.echo(json.dumps(document, indent=1, default=str))


# when this process was started, on the clock of time.monotonic, where the command is all that it does
_started: list[float] = []


def _began() -> float:
    """When the command began."""
    return _started[0] if _started else time.monotonic()


def _start_workers(ray: str | None) -> None:
    """What trials are forked from loads torch while we do; not when it is Ray's."""
    if ray is None:
        from netwright.core.forkserver import warm

        warm()


def script() -> NoReturn:
    """`main` as a process of its own, which leaves at once: to take down all that torch has set up costs a second of
    the processor and more, and that is not in a command's budget. What starting Python has taken is in it."""
    import psutil

    _started.append(time.monotonic() - max(0.0, time.time() - psutil.Process().create_time()))
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    with contextlib.suppress(OSError):  # nobody reads it any more
        sys.stdout.flush()
        sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else 0)


def main() -> NoReturn:
    """Entry point: an error that a user can act on is one line and exit code 2."""
    try:
        code = app(standalone_mode=False) or 0  # what `typer.Exit` carried
    except NetwrightError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except Exception as error:
        code = _other(error)
    sys.exit(code)


def _other(error: Exception) -> int:
    """Ctrl-C and the framework's own complaints; anything else is a fault of ours and goes on up."""
    if type(error).__name__ == "Stopped":
        print(error, file=sys.stderr)
        return 130
    if hasattr(error, "format_message"):
        print(f"error: {error.format_message()}", file=sys.stderr)  # bad options
        return 2
    raise error


if __name__ == "__main__":
    script()
