"""The record of a study: one SQLite file, a row per trial, written when the trial ends.

Write-ahead log and full synchronisation: a row that was committed survives kill -9 and a power cut; one that
was not is not there at all. The trial's key is the primary key, so no row can stand twice.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from netwright.core.errors import BadInput
from netwright.core.study.trial import Ended, Trial

_APPLICATION = 0x4E747774  # 'Ntwt', so that no other program's database is taken for ours
_VERSION = 1
_SCHEMA = f"""
create table study (name text primary key, value text not null);
create table trials (
    key text primary key, position integer not null, slug text not null, label text not null,
    settings text not null, seed integer not null, status text not null, reason text not null default '',
    seconds real, memory integer, started real, finished real, figures text not null default '{{}}',
    note text not null default '', files text not null default '{{}}', traceback text not null default '');
pragma application_id = {_APPLICATION};
pragma user_version = {_VERSION};
"""
_KEPT = "kept: "  # names of what the study decided when it began, beside its question
_COLUMNS = (
    "key", "label", "slug", "settings", "seed", "status", "reason", "seconds", "memory", "note", "traceback",
)  # fmt: skip


class Record:
    """The file, opened. question: what the study is about (network, task, goal, ...), each part as a short
    text; a file made for another question is refused. None: take the file as it is, which must exist.
    """

    def __init__(self, path: Path, question: Mapping[str, str] | None = None) -> None:
        self.path = path
        if question is None and not path.exists():
            raise BadInput(f"{path}: no such study")
        with self._plain_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._prepare(dict(question or {}))
        if question is not None:
            self._compare(question)

    def _prepare(self, question: dict[str, str]) -> None:
        db = self._database
        db.execute("pragma busy_timeout = 30000")
        if self._pragma("application_id") == _APPLICATION:
            if self._pragma("user_version") != _VERSION:
                raise BadInput(f"{self.path} was written by another version of netwright; {_ANOTHER}")
        elif db.execute("select count(*) from sqlite_schema").fetchone()[0]:
            raise BadInput(f"{self.path} is a database of another program; {_ANOTHER}")
        else:
            self._create(question)
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")

    def _create(self, question: dict[str, str]) -> None:
        """The tables and the question, in one transaction: a study is there whole or not at all."""
        with self._transaction() as db:
            if self._pragma("application_id") != _APPLICATION:  # another process may have been first
                for statement in _SCHEMA.split(";")[:-1]:
                    db.execute(statement)
                db.executemany("insert into study values (?, ?)", question.items())

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._database
        db.execute("begin immediate")
        try:
            yield db
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise

    def _pragma(self, name: str) -> int:
        return self._database.execute(f"pragma {name}").fetchone()[0]

    def _compare(self, question: Mapping[str, str]) -> None:
        kept = self.question
        other = [name for name in {**kept, **question} if kept.get(name) != question.get(name)]
        if other:
            raise BadInput(f"{self.path} was made with another {' and '.join(other)}; {_ANOTHER}")

    @property
    def question(self) -> dict[str, str]:
        with self._plain_errors():
            rows = self._database.execute("select name, value from study where name != 'owner'").fetchall()
        return {name: value for name, value in rows if not name.startswith(_KEPT)}

    def remember(self, name: str, value: str) -> str:
        """Keep a text that is no part of the question, unless there is one of this name; the one that is kept."""
        self._write("insert or ignore into study values (?, ?)", _KEPT + name, value)
        with self._plain_errors():
            row = self._database.execute("select value from study where name = ?", (_KEPT + name,)).fetchone()
        return row[0]

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Whatever goes wrong with the file is one line that says what to do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if "full" in text or "disk I/O" in text:
                advice = "is the disk full? What was finished is kept; free some space and run the same again"
            elif "not a database" in text or "malformed" in text:
                advice = f"it is no study, or a damaged one; {_ANOTHER}"
            elif "readonly" in text or "unable to open" in text:
                advice = "it cannot be written there; choose another --out"
            else:
                advice = _ANOTHER
            raise BadInput(f"{self.path}: {text}: {advice}") from error
        except OSError as error:
            raise BadInput(f"cannot write {self.path}: {error.strerror or error}") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """This process alone runs the study. The lock ends with its process, however that ends."""
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0)
        with self._plain_errors():
            try:
                lock.acquire()
            except Timeout:
                owner = self._database.execute("select value from study where name = 'owner'").fetchone()
                who = owner[0] if owner else "another process"
                raise BadInput(
                    f"{self.path} is being run by {who}; wait until it ends, or choose another --out"
                ) from None
        try:
            who = f"process {os.getpid()} since {time.strftime('%H:%M:%S')}"
            self._write("insert or replace into study values ('owner', ?)", who)
            yield
        finally:
            lock.release()

    def _write(self, statement: str, *values: Any) -> None:
        with self._plain_errors():
            self._database.execute(statement, values)

    def recover(self) -> None:
        """Forget trials that were running when their study was killed: they will run again."""
        self._write("delete from trials where status = 'running'")

    def begin(self, trial: Trial, position: int) -> None:
        self._write(
            "insert into trials (key, position, slug, label, settings, seed, status, started)"
            " values (?, ?, ?, ?, ?, ?, 'running', ?)",
            trial.key, position, trial.slug, trial.label, json.dumps(dict(trial.settings)), trial.seed,
            time.time(),
        )  # fmt: skip

    def end(self, key: str, ended: Ended, files: Mapping[str, str]) -> None:
        """files: name -> signature, of files that are on disk already."""
        self._write(
            "update trials set status = ?, reason = ?, seconds = ?, memory = ?, finished = ?, figures = ?,"
            " note = ?, files = ?, traceback = ? where key = ? and status = 'running'",
            ended.status, ended.reason, ended.seconds, ended.memory, time.time(), json.dumps(ended.figures),
            ended.note, json.dumps(dict(files)), ended.traceback, key,
        )  # fmt: skip

    def add(self, key: str, figures: Mapping[str, float]) -> None:
        """More figures for a trial, in one transaction."""
        with self._plain_errors(), self._transaction() as db:
            kept = json.loads(db.execute("select figures from trials where key = ?", (key,)).fetchone()[0])
            text = json.dumps(kept | dict(figures))
            db.execute("update trials set figures = ? where key = ?", (text, key))

    def rows(self) -> list[dict[str, Any]]:
        """A flat dict per trial, in the order of the study: the fixed columns, then the figures."""
        with self._plain_errors():
            found = self._database.execute(
                f"select {', '.join(_COLUMNS)}, figures, files from trials order by position, started"
            ).fetchall()
        rows = []
        for *values, figures, files in found:
            row = dict(zip(_COLUMNS, values, strict=True))
            row["settings"] = json.loads(row["settings"])
            rows.append(row | {"files": json.loads(files)} | json.loads(figures))
        return rows

    def close(self) -> None:
        self._database.close()


_ANOTHER = "choose another --out, or delete it if it is no longer needed"
