"""Data tests write to a cache of their own, and make pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB", kind: str = "png") -> bytes:
    """A random image of height x width, as the bytes of a file."""
    shape = size if mode == "L" else (*size, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, kind)
    return out.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """photos(classes=("cat", "dog"), each=20, roles=()) -> a folder of pictures."""

    def make(
        classes: tuple[str, ...] = ("cat", "dog"), each: int = 20, roles: tuple[str, ...] = ("",), **how
    ) -> Path:
        root = tmp_path / "photos"
        for role in roles:
            for c, name in enumerate(classes):
                folder = root / role / name
                folder.mkdir(parents=True)
                for i in range(each):
                    seed = 1000 * c + i + (roles.index(role) + 1) * 10_000
                    (folder / f"{i:03d}.png").write_bytes(picture(seed, **how))
        return root

    make.picture = picture
    return make
