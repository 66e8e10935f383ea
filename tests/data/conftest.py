"""Data tests write to a cache of their own, and make pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.making import picture


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


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
