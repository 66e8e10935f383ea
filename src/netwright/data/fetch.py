"""Fetching a public data set from its official source: only when asked, resumed where it stopped, checked."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import importlib.util
import os
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import Any

from netwright.core import progress
from netwright.core.errors import BadInput
from netwright.data.places import cache_folder, locate
from netwright.data.sources import File, source

_CHUNK = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte


def fetch(name: str) -> Path:
    """Bring a data set into the cache folder, unless it is at hand already; its folder.

    A file is written beside its place as `<name>.part`, continued from there after an interruption, and renamed
    only when its checksum is right.
    """
    wanted = source(name)
    if not wanted.files:  # it comes with an installed package
        spec = importlib.util.find_spec("sklearn.datasets.data")
        return Path(next(iter(spec.submodule_search_locations or [""]))) if spec else Path()
    at_hand = locate(wanted)
    if at_hand is not None:
        return at_hand[0].parent
    folder = cache_folder("data") / wanted.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write {folder}: {error.strerror or error}") from error
    for file in wanted.files:
        if not (folder / file.name).is_file():
            download(file, folder)
    return folder


def download(file: File, folder: Path) -> Path:
    """One file into `folder`, resumed, checked and renamed at the end."""
    target, part = folder / file.name, folder / f"{file.name}.part"
    try:
        _receive(file, part)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise BadInput(
            f"cannot fetch {file.url} ({reason}); the same command goes on from here, "
            f"or put the file into {folder} yourself"
        ) from error
    except OSError as error:
        raise BadInput(f"cannot write {part}: {error.strerror or error}") from error
    found = content_sha256(part, file.packed)
    if found != file.sha256:
        part.unlink()
        raise BadInput(
            f"{file.url} is not what it should be: sha256 {found[:12]}..., expected {file.sha256[:12]}...; "
            "it was thrown away"
        )
    os.replace(part, target)
    return target


def _receive(file: File, part: Path) -> None:
    """Append to `part` what is missing of the file."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(file.url, headers={"User-Agent": "netwright"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer: Any = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            return  # nothing beyond what we have; the checksum tells whether it is right
        raise
    with answer:
        resumed = answer.status == 206
        done = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length else None
        with open(part, "ab" if resumed else "wb") as out:
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                done += len(chunk)
                progress.step(done, total, file.name)
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def content_sha256(path: Path, packed: bool) -> str:
    """The checksum of a file's content (unpacked if gzip); of what cannot be unpacked, that of the file."""
    for opener in (gzip.open, open) if packed else (open,):
        digest = hashlib.sha256()
        try:
            with opener(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            return digest.hexdigest()
        except (gzip.BadGzipFile, EOFError, zlib.error):
            continue
    raise AssertionError("plain bytes can always be read")
