"""The official binary archive, made small; the JPEG copy where it is at hand; the augmentation."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import torch
from tests.data.making import picture

from netwright.core.errors import BadInput
from netwright.data import cifar10, task
from netwright.data.augment import flip_and_crop


def archive(path, counts, cut=0):
    """A cifar-10-binary.tar.gz with these numbers of images per batch file; `cut` bytes missing at the end."""
    rng = np.random.default_rng(0)
    pixels = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, count in counts.items():
            records = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
            records[:, 0] = np.arange(count) % 10
            pixels[name] = records
            data = records.tobytes()[: count * 3073 - cut]
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return pixels


def test_the_binary_archive_is_parsed_by_its_records(tmp_path):
    path = tmp_path / "a.tar.gz"
    held = archive(path, {"data_batch_1": 20, "data_batch_2": 10, "test_batch": 5})
    rows = list(cifar10._records(path, "data_batch_"))
    assert len(rows) == 30
    image, label = rows[13]
    expected = held["data_batch_1"][13]
    assert label == expected[0] == 3
    # plane by plane: red, green, blue, each 32 rows of 32
    assert image[1, 2, 5] == expected[1 + 1024 + 2 * 32 + 5]


def test_a_truncated_archive_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("NETWRIGHT_DATA", str(tmp_path))
    archive(tmp_path / "cifar10" / "cifar-10-binary.tar.gz", {"data_batch_1": 20, "test_batch": 5}, cut=7)
    with pytest.raises(BadInput, match=r"data_batch_1\.bin is truncated"):
        task("cifar10")


@pytest.mark.parametrize("part", [0.0, 0.4, 0.99])
def test_an_archive_that_was_cut_off_is_one_line(tmp_path, monkeypatch, part):
    monkeypatch.setenv("NETWRIGHT_DATA", str(tmp_path))
    path = tmp_path / "cifar10" / "cifar-10-binary.tar.gz"
    archive(path, {"data_batch_1": 20, "test_batch": 5})
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(BadInput, match=r"truncated or no tar archive|cannot be read") as error:
        task("cifar10")
    assert "\n" not in str(error.value)


def jpeg_copy(folder, name, content, role="cat"):
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / name, "w:xz") as tar:
        for i in range(4):
            info = tarfile.TarInfo(f"train/{role}/{i}.jpg")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder / name


def test_a_damaged_jpeg_copy_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NETWRIGHT_DATA", str(tmp_path))
    folder = tmp_path / "cifar10_jpeg"
    good = picture(1, (32, 32), kind="jpeg")
    jpeg_copy(folder, "test-two-thirds.tar.xz", good)
    path = jpeg_copy(folder, "train.tar.xz", good)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=r"train\.tar\.xz is truncated or no tar archive"):
        task("cifar10")
    jpeg_copy(folder, "train.tar.xz", good[:200])
    with pytest.raises(BadInput, match=r"train/cat/0\.jpg is broken"):
        task("cifar10")
    jpeg_copy(folder, "train.tar.xz", good, role="newt")
    with pytest.raises(BadInput, match="lies in no folder of a CIFAR-10 class"):
        task("cifar10")


@pytest.mark.data("cifar10_jpeg")
@pytest.mark.slow
def test_the_jpeg_copy_says_what_it_is():
    held = task("cifar10", limit=500)
    assert len(held.train) == 500
    assert held.division == "halved"
    assert abs(len(held.val) - len(held.test)) <= 1
    assert len(task("cifar10").train) == 50_000
    assert "JPEG" in held.note
    x = torch.cat([x for x, _ in held.train.batches(500)])
    assert x.mean((0, 2, 3)).abs().max() < 0.1
    assert (x.std((0, 2, 3)) - 1).abs().max() < 0.1


def test_each_augmented_image_is_a_shift_of_itself_or_its_mirror():
    images = torch.rand(40, 2, 6, 7)
    out = flip_and_crop(images, torch.Generator().manual_seed(1), border=2)
    shifts, mirrored = set(), 0
    for before, after in zip(images, out, strict=True):
        found = []
        for flip in (False, True):
            padded = torch.zeros(2, 10, 11)
            padded[:, 2:8, 2:9] = before.flip(2) if flip else before
            for top in range(5):
                for left in range(5):
                    if torch.equal(padded[:, top : top + 6, left : left + 7], after):
                        found.append((top, left, flip))
        assert len(found) == 1
        shifts.add(found[0][:2])
        mirrored += found[0][2]
    assert len(shifts) > 10
    assert 8 < mirrored < 32
