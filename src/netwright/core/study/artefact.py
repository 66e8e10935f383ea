"""Things that cross a process border or must survive it: whole modules, packed with torch.save and cloudpickle.

A pruned network has a structure of its own, and has to come back as the trainable module that it was, with
its names; so it is pickled, not exported. Unpickling runs code. What a study unpickles later is therefore
signed: HMAC-SHA256 with a key that lies in the user's config folder, readable by the user only. A file that
somebody else put there has no valid signature and is refused unless the user says that it is trusted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import io
import os
import secrets
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import cloudpickle
import torch
from torch import nn
from torch.nn.utils import parametrize

from netwright.core.errors import BadInput


class CannotPack(BadInput):
    """A thing that holds something that cannot leave its process: a lock, an open file, a generator."""


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined]
    """cloudpickle carries classes and functions of notebooks and scripts along; this one carries modules with
    parametrised weights (weight norm, spectral norm) too, whose class torch makes up and refuses to pickle.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, nn.Module) and parametrize.is_parametrized(obj):
            names = list(obj.parametrizations)  # type: ignore[arg-type]
            kind = parametrize.type_before_parametrizations(obj)
            return _parametrised, (kind, names), obj.__dict__
        return super().reducer_override(obj)


def _parametrised(kind: type[nn.Module], names: list[str]) -> nn.Module:
    module = kind.__new__(kind)
    parametrize._inject_new_class(module)
    for name in names:
        parametrize._inject_property(module, name)
    return module


_pickling = SimpleNamespace(__name__="cloudpickle", Pickler=_Pickler)


def pack(thing: Any, to: Path | BinaryIO) -> None:
    """Write any object to a file. What cannot be written is an error that says what it was."""
    try:
        torch.save(thing, to, pickle_module=_pickling)
    except OSError:
        raise
    except Exception as error:
        if "inline_container" in str(error):  # torch's writer says no more than that when it cannot write
            raise OSError(errno.ENOSPC, "writing failed, perhaps for want of space") from error
        raise CannotPack(f"cannot be sent to another process or stored: {error}") from error


def packed(thing: Any) -> bytes:
    buffer = io.BytesIO()
    pack(thing, buffer)
    return buffer.getvalue()


def unpack(source: Path | bytes, mapped: bool = False) -> Any:
    """Read what `pack` wrote. RUNS CODE: for our own files only, or after `check`.

    mapped: tensors are mapped from the file, copied on write: readers share the memory and cannot disturb
    each other or the file.
    """
    if isinstance(source, bytes):
        return torch.load(io.BytesIO(source), weights_only=False)
    return torch.load(source, mmap=mapped, weights_only=False)


def sign(content: bytes, where: str) -> str:
    """Signature of a file's content and of the place that it belongs to."""
    return hmac.new(_key(), where.encode() + b"\0" + content, hashlib.sha256).hexdigest()


def check(content: bytes, where: str, signature: str) -> bool:
    return hmac.compare_digest(sign(content, where), signature)


@cache
def _key() -> bytes:
    """The user's key, made on first use. Where no file can be kept, a key for this process: what it signs can
    be read again by this process only."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "netwright"
    path, fresh = folder / "study.key", secrets.token_bytes(32)
    temporary = folder / f".study.key.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(fresh)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)  # of two processes that start at once, the first one's key counts
            temporary.unlink()
        kept = path.read_bytes()
        return kept if len(kept) == len(fresh) else fresh
    except OSError:
        return fresh
