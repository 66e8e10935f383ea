"""What a person sees while a command runs: lines, a progress bar, tables. Silent under --json."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from netwright.app.clock import Clock
from netwright.core.plural import number_of
from netwright.core.progress import Listener, Progress


class View:
    """The terminal of one command. clock: the command's, for the time that is left."""

    clock: Clock | None = None

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        # a file or a pipe has no width of its own: give tables room
        self.console = Console(quiet=quiet, highlight=False, width=None if sys.stdout.isatty() else 160)
        self.live = not quiet and (sys.stdout.isatty() or self.console.is_jupyter)
        self._bar: Bar | None = None
        self._row: Any = None
        self._count = self._ended = 0

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
        if not self.live:
            self.say(what)
            yield lambda _: None
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
            Left(math.inf if self.clock is None else self.clock.end),
        )  # fmt: skip
        with Bar(*columns, console=self.console) as bar:
            row = bar.add_task(what, total=None)

            def listener(p: Progress) -> None:
                bar.update(
                    row, completed=p.done, total=p.total, description=f"{what}: {p.note}" if p.note else what
                )

            yield listener

    @contextmanager
    def trials(self, count: int, ends: float = math.inf) -> Iterator[None]:
        """A bar over the trials of a study, where there is no place for one a line for each; `trial` moves it on.

        ends: when their time is over, on the clock of time.monotonic.
        """
        self._count, self._ended = count, 0
        try:
            if not self.live:
                yield
                return
            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Left(ends),
            )  # fmt: skip
            with Bar(*columns, console=self.console) as bar:
                self._bar, self._row = bar, bar.add_task(f"trying {number_of(count, 'method')}", total=count)
                yield
        finally:
            self._bar = self._row = None
            self._count = 0

    def trial(self, label: str, news: Any) -> None:
        """Progress or the end of one trial, as `Study.run` reports it."""
        if not self._count:
            return
        if self._bar is None:
            if not isinstance(news, Progress):
                self._ended += 1
                self.say(
                    f"  {self._ended} of {self._count}: {label}: {news['status']}, {news['seconds']:.0f} s"
                )
        elif isinstance(news, Progress):
            self._bar.update(self._row, description=f"{label}: {news.note}"[:60].ljust(60))
        else:
            self._bar.advance(self._row)


class Left(ProgressColumn):
    """'at most 1:05 left', from the time at which the budget is over; 'about 0:40 left' where the pace so far says
    that it will be sooner."""

    def __init__(self, ends: float) -> None:
        super().__init__()
        self.ends = ends

    def render(self, task: Any) -> Text:
        most = self.ends - time.monotonic()
        if task.total and task.completed and task.elapsed:
            pace = task.elapsed * (task.total / task.completed - 1)
            if pace < most:
                return Text(time_left(pace, "about"))
        return Text(time_left(most))


def time_left(seconds: float, how: str = "at most") -> str:
    """'at most 1:05 left'; '' without an end."""
    if math.isinf(seconds):
        return ""
    minutes, rest = divmod(max(0, math.ceil(seconds)), 60)
    return f"{how} {minutes}:{rest:02d} left"


class Stopped(Exception):
    """Ctrl-C, with what the user should know; the command line's framework would swallow KeyboardInterrupt."""


@contextmanager
def open_screen(quiet: bool = False) -> Iterator[View]:
    try:
        yield View(quiet)
    except KeyboardInterrupt as stopped:
        raise Stopped(str(stopped) or "stopped; the same command goes on from here.") from stopped
