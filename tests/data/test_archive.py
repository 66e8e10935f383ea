"""Archives: hostile and damaged ones are refused in one line, and nothing is unpacked."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.data.making import packed

from netwright.core.errors import BadInput
from netwright.data import archive, task
from netwright.data.archive import members


def hostile_zip(path: Path, name: str, link: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        if link:
            info.external_attr = 0o120777 << 16
        archive.writestr(info, b"x")
    return path


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "cat/../../evil.png", "C:\\evil.png", "..\\e.png"]
)
def test_names_that_point_outside_are_refused(tmp_path, name):
    with pytest.raises(BadInput, match="points outside"):
        task(hostile_zip(tmp_path / "a.zip", name))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(BadInput, match="points outside"):
        task(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("cat/1.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(BadInput, match="link or device"):
        task(tmp_path / "a.tar")
    with pytest.raises(BadInput, match="holds a link"):
        task(hostile_zip(tmp_path / "a.zip", "cat/1.png", link=True))


def test_a_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_PLENTY", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        zeros = bytes(1 << 20)
        for i in range(4):
            file.writestr(f"cat/{i}.bmp", zeros)
    with pytest.raises(BadInput, match="unpacks to more than 200 times its size"):
        task(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz", ".tar.xz"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_truncated_archive_is_one_line(photos, kind, part):
    path = packed(photos(), kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(BadInput) as error:
        task(path)
    assert "\n" not in str(error.value)


def test_members_of_a_folder_follow_a_link_to_a_class(photos, tmp_path):
    root = photos()
    shutil.move(root / "dog", tmp_path / "elsewhere")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    assert sum(m.name.startswith("dog/") for m in members(root)) == 20
