"""Archives: hostile and damaged ones are refused in one line, and nothing is unpacked."""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data.making import packed, picture

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


def damaged_zip(folder: Path, method: int) -> Path:
    """A zip of the folder in which the bytes of one picture are changed: its checksum is wrong."""
    path = folder.parent / "damaged.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        for picture in sorted(folder.rglob("*.png")):
            file.write(picture, picture.relative_to(folder))
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("cat/003.png")
    data = bytearray(path.read_bytes())
    middle = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    data[middle : middle + 8] = bytes(b ^ 0xFF for b in data[middle : middle + 8])
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_picture_in_a_zip_is_named(photos, method):
    path = damaged_zip(photos(), method)
    with pytest.raises(BadInput, match=r"1 of 40 images are broken: cat/003\.png \(.+\)\. Remove") as error:
        task(path)
    assert "\n" not in str(error.value)


def test_a_zip_packed_in_an_unknown_way_is_one_line(photos):
    path = packed(photos(), ".zip")
    with zipfile.ZipFile(path) as file:
        offsets = [info.header_offset for info in file.infolist()]
        start = file.start_dir
    data = bytearray(path.read_bytes())
    for offset in offsets:
        data[offset + 8 : offset + 10] = b"\x61\x00"  # a method that nobody has implemented
    while (start := data.find(b"PK\x01\x02", start)) >= 0:
        data[start + 10 : start + 12] = b"\x61\x00"
        start += 4
    path.write_bytes(data)
    with pytest.raises(BadInput, match="none of the image files can be read"):
        task(path)
    with pytest.raises(BadInput, match=r"40 of 40 images are broken: .*compression method"):
        task(path, size=8, channels=3)


@given(
    st.sampled_from([".zip", ".tar", ".tar.gz", ".tar.xz"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_read_or_refused(tmp_path, kind, changes, kept):
    root = tmp_path / "photos"
    if not root.is_dir():
        for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(picture(len(name)))
    path = packed(root, kind)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[int(place * len(data))] = value
    path.write_bytes(data[: int(kept * len(data))] if kept < 0.5 else data)
    try:
        for member in members(path):
            with contextlib.suppress(OSError):
                member.read()
    except BadInput as error:
        message = str(error)
    else:
        message = str(path)
    assert message.startswith(str(path))


def test_members_of_a_folder_follow_a_link_to_a_class(photos, tmp_path):
    root = photos()
    shutil.move(root / "dog", tmp_path / "elsewhere")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    assert sum(m.name.startswith("dog/") for m in members(root)) == 20
