"""`netwright predict`: what becomes of the files afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netwright.app.commands.options import Json, print_json


def add(app: typer.Typer) -> None:
    app.command()(predict)


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
        print_json(found.to_json())
