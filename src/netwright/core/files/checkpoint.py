"""Tensors and numbers on disk: safetensors, written beside and renamed, so that a reader never sees half a file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from netwright.core.errors import BadInput, CannotWrite

_UMASK = os.umask(0)
os.umask(_UMASK)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; renamed to `path` if the block ends well, removed otherwise."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        os.chmod(name, 0o666 & ~_UMASK)  # mkstemp's own mode would lock colleagues out
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def together(folder: Path, last: str) -> Iterator[Path]:
    """A hidden folder inside `folder` to write files into. If the block ends well they are moved up, one at once after
    the other and `last` at the end; otherwise none is, and what was there stays as it was.

    folder: nobody else's meanwhile; what a killed run left half-made there is removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".new-*"):
            shutil.rmtree(left, ignore_errors=True)
        staged = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    except OSError as error:
        raise CannotWrite(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield staged
        for path in sorted(staged.iterdir(), key=lambda p: (p.name == last, p.name)):
            os.replace(path, folder / path.name)
    except OSError as error:
        raise CannotWrite(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def save_state(path: Path, tensors: dict[str, Tensor], numbers: dict[str, Any] | None = None) -> None:
    """Write tensors and JSON-able numbers to one safetensors file, atomically."""
    copies = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    with atomic(path) as temporary:
        save_file(copies, str(temporary), metadata={"netwright": json.dumps(numbers or {})})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_state` wrote, or any safetensors file (its numbers are then empty)."""
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads((file.metadata() or {}).get("netwright", "{}"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path} is no complete safetensors file ({error})") from error
