"""Where data lies: NETWRIGHT_DATA first, then the cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from netwright.core.errors import BadInput
from netwright.data.sources import Source


def cache_folder(part: str) -> Path:
    """A folder for things that can be made again: NETWRIGHT_CACHE, or the platform's place for caches."""
    given = os.environ.get("NETWRIGHT_CACHE")
    if given:
        base = Path(given)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "netwright" / part


def locate(source: Source) -> list[Path] | None:
    """The paths of a source's files, in order, in the first place that has them all; None where there is none."""
    own = tuple(file.name for file in source.files)
    given = os.environ.get("NETWRIGHT_DATA")
    places = [(cache_folder("data") / source.folder, own)]
    if given:
        layouts = [(source.folder, own), *source.also]
        places = [(Path(given) / folder, names) for folder, names in layouts] + places
    for folder, names in places:
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            return paths
    return None


def require(source: Source) -> list[Path]:
    """The paths of a source's files, or one error that says how to get them."""
    paths = locate(source)
    if paths is None:
        raise BadInput(
            f"the data set '{source.name}' is not on this machine. Fetch it with `netwright data get "
            f"{source.name}`, or set NETWRIGHT_DATA to the folder that holds {source.folder}/"
        )
    return paths
