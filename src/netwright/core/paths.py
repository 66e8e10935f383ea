"""What lies at a path that the user named."""

from __future__ import annotations

from pathlib import Path

from netwright.core.errors import BadInput


def exists(path: Path) -> bool:
    """Whether there is anything; BadInput where the system will not tell: a name too long, a closed folder."""
    try:
        return path.exists()
    except OSError as error:
        raise BadInput(f"cannot look for {path}: {error.strerror or error}") from error
