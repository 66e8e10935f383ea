"""The command line. Nothing heavy is imported before a command needs it.

Exit codes: 0 done, 1 the answer is no, 2 bad use or bad input, 130 interrupted.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import Annotated, NoReturn

import typer

from netwright.app.commands import listing, single, trying, using
from netwright.app.commands.start import process_started
from netwright.core.errors import NetwrightError

app = typer.Typer(
    name="netwright",
    help="Which published method actually helps MY network? Try them, apply the winner, keep the evidence.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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


for _group in (trying, using, single, listing):
    _group.add(app)


def script() -> NoReturn:
    """`main` as a process of its own, which leaves at once: to take down all that torch has set up costs a second of
    the processor and more, and that is not in a command's budget. What starting Python has taken is in it."""
    process_started()
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
