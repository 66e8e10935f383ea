"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from netwright.core.errors import BadInput

Model = Annotated[str | None, typer.Argument(help=".onnx, .pt2 or package.module:function; none trains one.")]
TASK = typer.Option(
    "--task", help="A name (`netwright data`) or a path: .npz, image folder, zip, CSV, Parquet."
)
Methods = Annotated[
    str | None, typer.Option("--methods", help="Comma-separated slugs (`netwright methods`).")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1)]
BudgetText = Annotated[str, typer.Option("--budget", help="Time for the whole command: 90s, 5m, 1h.")]
Ray = Annotated[
    str | None, typer.Option("--ray", help="Run the trials on a Ray cluster: its address, or 'local'.")
]
Batch = Annotated[
    int, typer.Option("--batch", min=1, help="Examples in one call of the network, as it will be used.")
]
Threads = Annotated[
    int, typer.Option("--threads", min=1, help="Threads for one call of the network, as it will be used.")
]
Device = Annotated[
    str, typer.Option("--device", help="Where training takes place: cuda, mps, ... Files and latency: CPU.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for machines.")]

# what the data are: keywords of netwright.data's task
_DATA: dict[str, Any] = {
    "target": Annotated[
        str | None, typer.Option("--target", help="Column to predict, for a CSV or Parquet table.")
    ],
    "drop": Annotated[
        str | None, typer.Option("--drop", help="Columns of a table to leave out, comma-separated.")
    ],
    "columns": Annotated[
        str | None,
        typer.Option(
            "--columns", help="A table's numbers in your network's order: 'age,sex=male,sex=female'."
        ),
    ],
    "missing": Annotated[
        str | None,
        typer.Option("--missing", help="Missing values of a table: median fills them, drop leaves rows out."),
    ],
    "unseen": Annotated[
        str | None,
        typer.Option("--unseen", help="Rows of the same form that the network has not seen: they judge it."),
    ],
    "size": Annotated[
        str | None, typer.Option("--size", help="Bring pictures to this size: 32 or 32x48 (height x width).")
    ],
    "limit": Annotated[int | None, typer.Option("--limit", help="Use at most so many training examples.")],
}
# how the network is opened, with the value where nothing is given
_NETWORK: dict[str, tuple[Any, Any]] = {
    "state": (
        Annotated[
            Path | None,
            typer.Option("--state", help="Weights for a package.module:function (safetensors)."),
        ],
        None,
    ),
    "trust_pickle": (
        Annotated[bool, typer.Option("--trust-pickle", help="Load pickled objects, which can run code.")],
        False,
    ),
    "as_it_is": (
        Annotated[
            bool,
            typer.Option("--as-it-is", help="Feed the network as the data are, however badly it scores so."),
        ],
        False,
    ),
}


def opens(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of how network and task are opened. It takes them as one argument, `opening`: the
    keywords of `app.opening.open_subject`."""

    def with_options(**given: Any) -> None:
        data = {name: value for name in _DATA if (value := given.pop(name)) is not None}
        opening = {name: given.pop(name) for name in _NETWORK}
        command(**given, opening={"task_options": data, **opening})

    added = [(name, kind, None) for name, kind in _DATA.items()]
    added += [(name, *rest) for name, rest in _NETWORK.items()]
    signature = inspect.signature(command, eval_str=True)
    own = [p for name, p in signature.parameters.items() if name != "opening"]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=kind)
        for name, kind, value in added
    ]
    last = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name == "json_"]
    parameters = [*(p for p in own if p.name != "json_"), *more, *last]
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    return with_options


def slugs(text: str | None) -> list[str] | None:
    """The slugs of --methods, each once."""
    if text is None:
        return None
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise BadInput("--methods names no method. `netwright methods` lists them.")
    return found


def settings(pairs: list[str] | None) -> dict[str, Any]:
    """name=value, the value read as TOML where it is TOML, else as text."""
    import tomllib

    found: dict[str, Any] = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign:
            raise BadInput(f"--set {pair} is no name=value")
        try:
            found[name.strip()] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            found[name.strip()] = value
    return found


def print_json(document: Any) -> None:
    import json

    typer.echo(json.dumps(document, indent=1, default=str))
