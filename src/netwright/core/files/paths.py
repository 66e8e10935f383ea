"""What lies at a path that the user named."""

from __future__ import annotations

import os
from pathlib import Path

from netwright.core.errors import BadInput, CannotWrite


def exists(path: Path) -> bool:
    """Whether there is anything; BadInput where the system will not tell: a name too long, a closed folder."""
    try:
        return path.exists()
    except OSError as error:
        raise BadInput(f"cannot look for {path}: {error.strerror or error}") from error


def check_writable(folder: Path) -> None:
    """CannotWrite, before the work rather than after it, where `folder` cannot be made or written to."""
    there = folder
    while not exists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise CannotWrite(f"cannot write {folder}: {there} is no folder; choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise CannotWrite(f"cannot write {folder}: {there} is closed for writing; choose another --out")
