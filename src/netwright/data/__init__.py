"""Real data as tasks, by name or from the user's own files.

    task("digits")    task("cifar10", limit=10_000)    task("photos/")    task("table.csv", target="price")

Nothing here imports torch before a task is opened.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netwright.core.errors import BadInput, UnknownName
from netwright.core.files.paths import exists
from netwright.data.places import locate
from netwright.data.sources import SOURCES, source

if TYPE_CHECKING:
    from netwright.core.task import Task


def names() -> tuple[str, ...]:
    """The data sets that `task` knows by name."""
    return tuple(SOURCES)


def task(name_or_path: str | Path, seed: int = 0, unseen: str | Path | None = None, **options: Any) -> Task:
    """A task with fixed, seeded training, validation and test splits.

    name_or_path: a name (`names()`), or a path: .npz, image folder (also as .zip or .tar), .csv, .tsv, .parquet,
    or a folder that Hugging Face `datasets` saved. options: `limit` (training examples) everywhere, and what the
    kind of data takes: `size` and `channels` (images), `target` and `drop` (tables), `kind`.

    Validation and test rows are never cut from rows called train: core/division.py. unseen: a path to rows of the
    same form that the network has not seen; their halves become validation and test, all others are for training.
    """
    load, where = _loader(name_or_path)
    path = where.get("path")
    if unseen is not None and not exists(Path(unseen)):
        raise BadInput(f"{unseen}: no such file or folder")
    if unseen is not None and path is not None:
        options["unseen"] = unseen
    held = _call(load, path.name if path else str(name_or_path), {**where, "seed": seed, **options})
    if unseen is not None and path is None:
        from netwright.data.unseen import judged_by

        return judged_by(held, Path(unseen), seed)
    return held


def takes(name_or_path: str | Path, option: str) -> bool:
    """Whether `task` takes this option for this data (`size`: pictures that can be brought to any size)."""
    return option in inspect.signature(_loader(name_or_path)[0]).parameters


def _loader(name_or_path: str | Path) -> tuple[Callable[..., Task], dict[str, Path]]:
    """The function that opens this data, and where the data lies if it has no name of ours."""
    name = str(name_or_path)
    if name in SOURCES:
        return importlib.import_module(source(name).home).load, {}
    from netwright.data.own import opener

    path = Path(name_or_path)
    return opener(path), {"path": path}


def _call(load: Callable[..., Task], name: str, arguments: dict[str, Any]) -> Task:
    known = list(inspect.signature(load).parameters)
    for key in arguments:
        if key not in known:
            takes = [k for k in known if k not in ("path", "seed")]
            raise UnknownName(f"option of '{name}'", key, takes, f"It takes {', '.join(takes)}.")
    if arguments.get("limit") is not None:
        try:
            arguments["limit"] = int(arguments["limit"])
        except ValueError:
            raise BadInput(f"limit must be a number of examples, got '{arguments['limit']}'") from None
    return load(**arguments)


def listing() -> list[dict[str, Any]]:
    """One row per known data set: name, what it is, examples, shape, classes, and whether it is at hand."""
    return [
        {
            "name": s.name, "what": s.what, "examples": s.examples, "shape": s.shape, "classes": s.classes,
            "at hand": "yes" if not s.files or locate(s) else f"netwright data get {s.name}",
        }
        for s in SOURCES.values()
    ]  # fmt: skip
