"""A study: things tried on one network and task, each in a process of its own, on record as they finish.

    study = Study("out/study.db", question={"network": ..., "task": ...})
    rows = study.run(trials, function, network, task, limits=Limits(seconds=600))

`function(trial, *shared) -> Outcome` does the work. Run again after an interruption, the same call goes on
where it stopped. The study knows nothing of methods.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from netwright.core import progress
from netwright.core.errors import BadInput
from netwright.core.progress import Progress
from netwright.core.study import artefact
from netwright.core.study.processes import Processes, Runner, Session
from netwright.core.study.record import Record
from netwright.core.study.trial import Ended, Limits, Outcome, Trial
from netwright.core.study.worker import NETWORK

__all__ = ["Limits", "Outcome", "Study", "Trial", "best", "pareto"]

Row = dict[str, Any]
_GOES_ON = "What was finished is kept; the same call goes on from here."
Listener = Callable[[str, Progress | Row], None]


class Study:
    """The record at `path` (an SQLite file) and the files of its trials beside it, in `path` with the ending
    '.files'.

    question: what the study is about, part by part, as short texts (fingerprints); a record made for another
    question is refused. None opens an existing record as it is.
    """

    def __init__(self, path: str | Path, question: Mapping[str, str] | None = None) -> None:
        self.path = Path(path)
        self.folder = self.path.with_suffix(".files")
        self.record = Record(self.path, question)

    def run(
        self,
        trials: Sequence[Trial],
        function: Callable[..., Outcome],
        *shared: Any,
        limits: Limits = Limits(),  # noqa: B008  frozen
        jobs: int | None = None,
        progress: Listener | None = None,
        runner: Runner | None = None,
    ) -> list[Row]:
        """Run the trials that have no row yet; return the rows of all of them, in their order (without those for
        which `limits.until` left no time).

        shared: handed to every trial; written once to a file that the workers map, so that it takes memory
        once, and copied on write, so that no trial can spoil it for the others.
        jobs: trials under way at once, default what the runner says. runner: where they run, `Processes()` (one
        at a time) by default, or `Ray(address)` of core/study/cluster.py.
        progress: called with a trial's label and its news: a Progress while it runs, its row when it has ended.
        Listeners of core.progress hear how far the study is.
        A trial that raises, crashes, hangs or takes too much memory is a row that says so. KeyboardInterrupt
        ends the workers, keeps the finished rows and goes on up.
        """
        _refuse_twins(trials)
        with self.record.lock():
            self.record.recover()
            kept = {row["key"] for row in self.rows}
            left = [(place, trial) for place, trial in enumerate(trials) if trial.key not in kept]
            if left:
                runner = runner or Processes()
                runner.warm()
                jobs = jobs or runner.slots()
                with (
                    self._parcel(function, shared) as parcel,
                    runner.session(parcel, limits, jobs) as session,
                ):
                    _Run(self, session, limits, len(trials), jobs, progress).go(left)
        by_key = {row["key"]: row for row in self.rows}
        return [by_key[trial.key] for trial in trials if trial.key in by_key]

    @property
    def rows(self) -> list[Row]:
        """One flat dict per trial that has ended: key, label, slug, settings, seed, status, reason, seconds,
        memory, note, traceback, files (name -> signature), and its figures by their names."""
        return [row for row in self.record.rows() if row["status"] != "running"]

    def row(self, key: str) -> Row:
        for row in self.rows:
            if row["key"] == key:
                return row
        raise BadInput(f"{self.path} has no trial '{key}'")

    def add(self, key: str, figures: Mapping[str, float]) -> None:
        """More figures for a trial that has ended, such as a latency measured when the machine was quiet."""
        self.record.add(key, figures)

    def remember(self, name: str, value: str) -> str:
        """A decision that holds for as long as the study goes on: this one, or the one that an earlier run made."""
        return self.record.remember(name, value)

    def file(self, key: str, name: str, trust: bool = False) -> bytes:
        """A file that a trial left. Refused if it is not the one that this user's study wrote, unless trusted."""
        signature = self.row(key)["files"].get(name)
        path = self.folder / key / name
        if signature is None or not path.is_file():
            raise BadInput(f"{self.path}: trial '{key}' left no file '{name}'")
        content = path.read_bytes()
        if not trust and not artefact.check(content, f"{key}/{name}", signature):
            raise BadInput(
                f"{path} was not written by you on this machine, or was changed since; loading it could run code. "
                "Delete the study and run it again, or, if you trust the file, load it in Python with trust=True"
            )
        return content

    def network(self, key: str, trust: bool = False) -> nn.Module:
        """The network that a trial left, as the module that it was: trainable, with its names.

        It is stored pickled, signed with a key of the user's (core/study/artefact.py), since an exported program
        would be neither; trust: load it although its signature is not ours.
        """
        content = self.file(key, NETWORK, trust)
        try:
            return artefact.unpack(content)
        except (ModuleNotFoundError, AttributeError) as error:  # pickles name classes by module
            raise BadInput(
                f"{self.path}: the network of trial '{key}' was stored by another version of Netwright, or uses code "
                f"that is not here ({error}). Delete the study and run it again, or use the version that made it"
            ) from error

    def pareto(self, minimise: Sequence[str] = (), maximise: Sequence[str] = ()) -> list[Row]:
        """The rows that no other beats in these figures."""
        return pareto(self.rows, minimise, maximise)

    def best(self, *, minimise: str | None = None, maximise: str | None = None) -> Row | None:
        """The row with the lowest or the highest figure of this name."""
        return best(self.rows, minimise=minimise, maximise=maximise)

    def close(self) -> None:
        self.record.close()

    @contextmanager
    def _parcel(self, function: Callable[..., Outcome], shared: tuple[Any, ...]) -> Iterator[Path]:
        """The file that carries function and shared things to the workers: written now, for this run only."""
        path, running = self.folder / ".parcel.pt", self.folder / ".running"
        try:
            with self._plain_errors():
                shutil.rmtree(running, ignore_errors=True)
                running.mkdir(parents=True)
                path.unlink(missing_ok=True)
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    artefact.pack((function, shared), file)
            yield path
        except artefact.CannotPack as error:
            raise BadInput(f"the network, the task or the trial function {error}") from error
        finally:
            path.unlink(missing_ok=True)
            shutil.rmtree(running, ignore_errors=True)

    def _store(self, key: str, ended: Ended, folder: Path) -> None:
        """Files first, on disk and under their name, then the row: a row never speaks of a file that is not
        there, and files without a row are overwritten when the trial runs again."""
        if ended.status == "not stored":
            raise BadInput(f"cannot write {self.folder}: {ended.reason}. {_GOES_ON}")
        signatures = {}
        with self._plain_errors():
            if ended.status == "done":
                for path in sorted(folder.iterdir()):
                    signatures[path.name] = artefact.sign(path.read_bytes(), f"{key}/{path.name}")
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            if signatures:
                home = self.folder / key
                shutil.rmtree(home, ignore_errors=True)
                os.replace(folder, home)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        self.record.end(key, ended, signatures)

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInput(f"cannot write {self.folder}: {error.strerror or error}. {_GOES_ON}") from error


class _Run:
    """One go at the trials that are left."""

    def __init__(
        self, study: Study, session: Session, limits: Limits, total: int, jobs: int, listener: Listener | None
    ) -> None:
        self.study, self.session, self.limits, self.listener = study, session, limits, listener
        self.total, self.jobs = total, jobs
        self.running: dict[str, Trial] = {}
        self.shares: dict[str, float] = {}

    def go(self, left: list[tuple[int, Trial]]) -> None:
        finished = self.total - len(left)
        left = list(left)
        while left or self.running:
            while left and len(self.running) < self.jobs:
                paced = self.limits.paced(left[0][1], len(left), self.jobs)
                if paced is None:  # no time is left
                    left.clear()
                    break
                self._start(left.pop(0)[0], paced)
            if not self.running:
                return
            for key, event in self.session.events():
                if isinstance(event, Ended):
                    finished += 1
                    self._end(key, event, finished)
                else:
                    self._hear(key, event, finished)

    def _start(self, place: int, trial: Trial) -> None:
        folder = self._folder(trial.key)
        with self.study._plain_errors():
            folder.mkdir()
        self.study.record.begin(trial, place)
        self.running[trial.key] = trial
        self.session.start(trial, folder)

    def _end(self, key: str, ended: Ended, finished: int) -> None:
        self.study._store(key, ended, self._folder(key))
        trial = self.running.pop(key)
        self.shares.pop(key, None)
        progress.step(finished + sum(self.shares.values()), self.total, f"{trial.label}: {ended.status}")
        if self.listener is not None:
            self.listener(trial.label, self.study.row(key))

    def _hear(self, key: str, news: Progress, finished: int) -> None:
        label = self.running[key].label
        self.shares[key] = min(1.0, news.done / news.total) if news.total else 0.0
        progress.step(finished + sum(self.shares.values()), self.total, f"{label}: {news.note}")
        if self.listener is not None:
            self.listener(label, news)

    def _folder(self, key: str) -> Path:
        return self.study.folder / ".running" / key


def _refuse_twins(trials: Sequence[Trial]) -> None:
    seen: dict[str, Trial] = {}
    for trial in trials:
        if trial.key in seen:
            raise BadInput(f"the trials '{seen[trial.key].label}' and '{trial.label}' are the same")
        seen[trial.key] = trial


def done(rows: Sequence[Row], figures: Sequence[str]) -> list[Row]:
    """The rows that ended well and have all these figures, as numbers."""
    return [
        row
        for row in rows
        if row["status"] == "done" and not any(math.isnan(row.get(figure, math.nan)) for figure in figures)
    ]


def pareto(rows: Sequence[Row], minimise: Sequence[str] = (), maximise: Sequence[str] = ()) -> list[Row]:
    """The rows that no other beats: at least as good in every figure and better in one. In their order."""
    able = done(rows, [*minimise, *maximise])
    points = [[*(r[f] for f in minimise), *(-r[f] for f in maximise)] for r in able]

    def beaten(p: list[float]) -> bool:
        return any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)

    return [row for row, point in zip(able, points, strict=True) if not beaten(point)]


def best(
    rows: Sequence[Row],
    *,
    minimise: str | None = None,
    maximise: str | None = None,
    where: Callable[[Row], bool] = lambda row: True,
) -> Row | None:
    """The row with the lowest (or highest) figure among those that `where` admits; None if there is none."""
    figure = minimise or maximise
    if figure is None or (minimise and maximise):
        raise BadInput("best needs one figure, to minimise or to maximise")
    able = [row for row in done(rows, [figure]) if where(row)]
    return min(able, key=lambda r: r[figure] if minimise else -r[figure], default=None)
