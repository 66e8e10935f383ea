"""The files of a folder, zip or tar, read one at a time and never unpacked to disk.

Hostile archives are refused: names that point outside, links and devices, and contents out of all proportion.
"""

from __future__ import annotations

import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, NoReturn

from netwright.core.errors import BadInput

LARGEST = 64 << 20  # bytes of one file
# what the standard library raises for archives that are cut off, damaged or packed in ways that it cannot unpack
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, struct.error, NotImplementedError,
    ValueError,
)  # fmt: skip
_PLENTY = 1 << 30  # below this, no archive is out of proportion
_PROPORTION = 200  # unpacked over packed bytes


class Member(NamedTuple):
    """One file: its path inside, its bytes, when it changed, and how to read it (during the iteration only).

    read: OSError where this file is damaged.
    """

    name: str
    size: int
    changed: int
    read: Callable[[], bytes]


def members(path: Path) -> Iterator[Member]:
    """All files below a folder, or in an archive. Folders in order of name, archives in their own order."""
    with readable(path):
        if path.is_dir():
            yield from _folder(path)
        elif zipfile.is_zipfile(path):
            yield from _zip(path)
        else:
            yield from _tar(path)


@contextmanager
def readable(path: Path, kind: str = "zip or tar archive") -> Iterator[None]:
    """Whatever is wrong with a packed file that is read within becomes BadInput."""
    try:
        yield
    except _DAMAGED as error:
        raise BadInput(f"{path} is truncated or no {kind} ({_reason(error)})") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error})") from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _folder(root: Path) -> Iterator[Member]:
    # the user's own links to folders are followed, one level deep: where the classes are
    tops = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    for top in tops:
        if not top.is_dir():
            yield _file(root, top)
            continue
        for folder, inner, files in os.walk(top, onerror=_closed):
            inner.sort()
            for name in sorted(files):
                yield _file(root, Path(folder) / name)


def _closed(error: OSError) -> NoReturn:
    raise error  # a folder that may not be read is not an empty one


def _file(root: Path, path: Path) -> Member:
    try:
        found = path.stat()
    except OSError:
        return Member(path.relative_to(root).as_posix(), 0, 0, lambda: b"")  # a dangling link: broken
    name = path.relative_to(root).as_posix()
    return Member(name, found.st_size, found.st_mtime_ns, lambda: path.read_bytes())


def _zip(path: Path) -> Iterator[Member]:
    total, changed = 0, path.stat().st_mtime_ns
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            _check_name(path, info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise BadInput(f"{path} holds a link ('{info.filename}'); pack the files themselves")
            if info.flag_bits & 1:
                raise BadInput(f"{path} is encrypted; unpack it first")
            total = _check_total(path, total + info.file_size)
            yield Member(
                info.filename, info.file_size, changed, lambda info=info: _bounded(lambda: archive.open(info))
            )


def _tar(path: Path) -> Iterator[Member]:
    total, changed = 0, path.stat().st_mtime_ns
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isdir():
                continue
            _check_name(path, member.name)
            if not member.isfile():
                raise BadInput(f"{path} holds a link or device ('{member.name}'); pack the files themselves")
            total = _check_total(path, total + member.size)
            yield Member(
                member.name.removeprefix("./"), member.size, changed,
                lambda member=member: _bounded(lambda: archive.extractfile(member)),
            )  # fmt: skip


def _bounded(opened: Callable[[], IO[bytes] | None]) -> bytes:
    """The content of one file of an archive. Called by whoever iterates, beyond the reach of `readable`."""
    try:
        file = opened()
        assert file is not None, "links and devices were refused"
        with file:
            return file.read(LARGEST)
    except _DAMAGED as error:
        raise OSError(_reason(error)) from error


def _check_name(path: Path, name: str) -> None:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in (pure.parts or ("",))[0]:
        raise BadInput(f"{path} holds a name that points outside of it ('{name}'); not opened")


def _check_total(path: Path, total: int) -> int:
    if total > _PLENTY and total > _PROPORTION * path.stat().st_size:
        raise BadInput(f"{path} unpacks to more than {_PROPORTION} times its size; not opened")
    return total
