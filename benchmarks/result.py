"""Where a benchmark's figures go: JSON, with the machine, the versions and the revision that they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from netwright.claims.record import machine, revision
from netwright.core.files.checkpoint import atomic


def write(path: Path, figures: Mapping[str, Any]) -> None:
    """Also prints them."""
    said = {**figures, "machine": machine(), "torch": torch.__version__, "revision": revision()}
    text = json.dumps(said, indent=1)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(text)
