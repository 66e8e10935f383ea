"""What a person sees while a command runs: lines, a progress bar, tables. Silent under --json."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from netwright.core.plural import number_of
from netwright.core.progress import Listener, Progress


class View:
    """The terminal of one command."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        # a file or a pipe has no width of its own: give tables room
        self.console = Console(quiet=quiet, highlight=False, width=None if sys.stdout.isatty() else 160)
        self._bar: Bar | None = None
        self._row: Any = None

    def say(self, text: str = "") -> None:
        (self._bar.console if self._bar else self.console).print(text, markup=False, soft_wrap=True)

    def show(self, thing: Any) -> None:
        self.console.print(thing)

    def table(self, rows: list[dict[str, Any]]) -> None:
        """Rows of like dictionaries; columns in the order of their first appearance."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        names = list(dict.fromkeys(name for row in rows for name in row))
        for name in names:
            table.add_column(name, overflow="fold")
        for row in rows:
            cells = (row.get(name, "") for name in names)
            table.add_row(*(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells))
        self.console.print(table)

    @contextmanager
    def working(self, what: str) -> Iterator[Listener]:
        """A bar for one long step; the listener it gives takes `core.progress` steps."""
        if self.quiet or not sys.stdout.isatty():
            if not self.quiet:
                self.say(what)
            yield lambda _: None
            return
        with Bar(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=self.console
        ) as bar:
            row = bar.add_task(what, total=None)

            def listener(p: Progress) -> None:
                bar.update(
                    row, completed=p.done, total=p.total, description=f"{what}: {p.note}" if p.note else what
                )

            yield listener

    @contextmanager
    def trials(self, count: int, done: int = 0) -> Iterator[None]:
        """A bar over the trials of a study; `trial` moves it on."""
        if self.quiet or not sys.stdout.isatty():
            yield
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bar(*columns, console=self.console) as bar:
            self._bar, self._row = (
                bar,
                bar.add_task(f"trying {number_of(count, 'method')}", total=count, completed=done),
            )
            try:
                yield
            finally:
                self._bar = self._row = None

    def trial(self, label: str, news: Any) -> None:
        """Progress or the end of one trial, as `Study.run` reports it."""
        if self._bar is None:
            return
        if isinstance(news, Progress):
            self._bar.update(self._row, description=f"{label}: {news.note}"[:60].ljust(60))
        else:
            self._bar.advance(self._row)


class Stopped(Exception):
    """Ctrl-C, with what the user should know; the command line's framework would swallow KeyboardInterrupt."""


@contextmanager
def open_screen(quiet: bool = False) -> Iterator[View]:
    try:
        yield View(quiet)
    except KeyboardInterrupt as stopped:
        raise Stopped(str(stopped) or "stopped; the same command goes on from here.") from stopped
