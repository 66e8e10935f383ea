"""Pictures and archives for the tests."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB", kind: str = "png") -> bytes:
    """A random image of height x width, as the bytes of a file."""
    shape = size if mode == "L" else (*size, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, kind)
    return out.getvalue()


def packed(folder: Path, kind: str) -> Path:
    path = folder.parent / f"packed{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, file.relative_to(folder.parent))
    else:
        with tarfile.open(path, f"w:{kind.rpartition('.')[2] if kind != '.tar' else ''}") as archive:
            archive.add(folder, folder.name)
    return path
