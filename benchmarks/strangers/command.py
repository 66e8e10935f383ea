"""The netwright command line, in a process of its own, as its user types it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from case import Case


@dataclass(frozen=True)
class Said:
    """code: of exit; None where it was ended after `limit` seconds. seconds: wall-clock. out, err: what it printed."""

    code: int | None
    seconds: float
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def last(self) -> str:
        """Its last line, the one with the reason."""
        return (self.text.strip().splitlines() or [""])[-1]


def netwright(*words: str, limit: float | None = None) -> Said:
    if words[0] == "improve":  # what one run learned is nothing to the next
        words = (*words, "--no-history")
    began = time.monotonic()
    held = os.environ | {"COLUMNS": "160", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "netwright.app.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=held, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=limit)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 15)  # its workers as well
        out, err = process.communicate()
        code = None
    return Said(code, time.monotonic() - began, out, err)


def of(case: Case, without: Sequence[str] = ()) -> list[str]:
    """What a case's owner types after the command's name. without: options, each with its value, to be left out."""
    words = [case.model, "--task", case.task]
    if case.state:
        words += ["--state", case.state]
    for option, value in zip(case.options[::2], case.options[1::2], strict=True):
        if option not in without:
            words += [option, value]
    return words


def folder(base: Path, name: str) -> Path:
    path = base / name
    path.mkdir(parents=True, exist_ok=True)
    return path
