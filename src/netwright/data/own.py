"""The user's own data: which reader a path needs."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netwright.core.errors import BadInput
from netwright.core.files.paths import exists
from netwright.data.sources import source

_READERS = {
    ".npz": "npz",
    ".csv": "table", ".tsv": "table", ".parquet": "table",
    ".zip": "pictures", ".tar": "pictures", ".tgz": "pictures", ".gz": "pictures", ".xz": "pictures",
    ".bz2": "pictures", ".txz": "pictures",
}  # fmt: skip
_SAVED = ("dataset_dict.json", "dataset_info.json")


def opener(path: Path) -> Callable[..., Any]:
    """The function `load(path, seed, ...)` for what lies at this path; a clear error where nothing usable does."""
    suffix = path.suffix.lower()
    if not exists(path):
        if suffix in _READERS or os.sep in str(path) or "/" in str(path):
            raise BadInput(f"{path}: no such file or folder")
        source(str(path))  # raises, with the nearest known name
    if path.is_dir():
        home = "huggingface" if any(exists(path / name) for name in _SAVED) else "pictures"
    elif suffix in _READERS:
        home = _READERS[suffix]
    else:
        raise BadInput(
            f"{path}: cannot tell what this is. Data comes as .npz, .csv, .tsv, .parquet, an image folder "
            "(also as .zip or .tar), or a Hugging Face folder on disk"
        )
    return importlib.import_module(f"netwright.data.{home}").load
