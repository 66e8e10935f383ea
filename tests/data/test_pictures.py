"""The user's pictures: folder, zip and tar give the same task; every fault is one line."""

from __future__ import annotations

import io
import os
import shutil
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.data.making import packed

from netwright.core.errors import BadInput
from netwright.core.split import first
from netwright.data import task
from netwright.data.decode import Broken, header, parse_size, pixels
from netwright.data.layout import arrange, is_picture
from netwright.data.pictures import read_pictures


def everything(held) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = [], []
    for split in (held.train, held.val, held.test):
        for inputs, targets in split.batches(7):
            x.append(inputs)
            y.append(targets)
    return torch.cat(x), torch.cat(y)


def contents(held) -> set[tuple[bytes, int]]:
    """All pictures as bytes, with their labels, whatever the division."""
    x, y = everything(held)
    back = (x * held.normalise.std.view(1, -1, 1, 1) + held.normalise.mean.view(1, -1, 1, 1)) * 255
    images = back.round().to(torch.uint8).numpy()
    return {(image.tobytes(), int(label)) for image, label in zip(images, y, strict=True)}


def test_a_folder_becomes_a_task_with_its_pixels(photos):
    root = photos(("dog", "cat", "eel"))
    held = task(root)
    assert held.classes == ("cat", "dog", "eel")
    assert held.input_shape == (3, 12, 10)
    assert [len(s) for s in (held.train, held.val, held.test)] == [42, 9, 9]
    raw = {np.asarray(Image.open(f)).transpose(2, 0, 1).tobytes(): f.parent.name for f in root.rglob("*.png")}
    found = contents(held)
    assert {(image, held.classes[label]) for image, label in found} == set(raw.items())
    assert len(found) == 60


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz", ".tar.xz"])
def test_an_archive_gives_the_same_pictures(photos, kind):
    root = photos()
    path = packed(root, kind)
    if kind != ".zip":
        path = path.rename(
            path.with_name("packed" + {".tar": ".tar", ".tar.gz": ".tgz", ".tar.xz": ".txz"}[kind])
        )
    assert contents(task(path)) == contents(task(root))
    assert not list(path.parent.glob("cat"))  # nothing was unpacked


def test_split_folders_are_honoured(photos):
    root = photos(roles=("train", "valid", "test"), each=6)
    held = task(root)
    assert [len(s) for s in (held.train, held.val, held.test)] == [12, 12, 12]
    shutil.rmtree(root / "valid")
    held = task(root)
    assert held.division == "halved"
    assert [len(s) for s in (held.train, held.val, held.test)] == [12, 6, 6]
    shutil.rmtree(root / "test")
    assert task(root).division == "ours"


def test_unseen_pictures_judge_and_all_others_are_for_training(photos, tmp_path):
    root = photos(each=8)
    fresh = tmp_path / "fresh"
    for name, count in (("cat", 6), ("dog", 4)):
        (fresh / name).mkdir(parents=True)
        for i in range(count):
            (fresh / name / f"{i}.png").write_bytes(photos.picture(500 + i, size=(20, 20)))
    held = task(root, unseen=fresh)
    assert held.division == "halved"
    assert [len(s) for s in (held.train, held.val, held.test)] == [16, 5, 5]
    assert held.val.targets.tolist() == [0, 0, 0, 1, 1]
    assert first(held.test, 1)[0].shape == (1, 3, 12, 10)
    (fresh / "dog").rename(fresh / "newt")
    with pytest.raises(BadInput, match="class 'newt' of"):
        task(root, unseen=fresh)


def test_pictures_are_read_one_at_a_time_as_a_task_reads_them(photos):
    root = photos(each=8)
    found = list(read_pictures(root, (3, 12, 10), ("cat", "dog")))
    assert [p.label for p in found] == [0] * 8 + [1] * 8
    assert np.array_equal(np.stack([p.pixels for p in found]), task(root).train.images.numpy())
    assert {p.label for p in read_pictures(root / "cat", (1, 4, 4))} == {None}
    (root / "cat" / "001.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"cat/001.png is broken"):
        list(read_pictures(root, (3, 12, 10)))


def test_the_cache_is_used_until_a_picture_changes(photos, cache):
    root = photos()
    task(root)
    made = list((cache / "netwright" / "images").iterdir())
    stamp = (made[0] / "all.images.npy").stat().st_mtime_ns
    task(root, seed=5)
    assert (made[0] / "all.images.npy").stat().st_mtime_ns == stamp
    assert list((cache / "netwright" / "images").iterdir()) == made
    (root / "cat" / "000.png").write_bytes(photos.picture(77))
    task(root)
    assert len(list((cache / "netwright" / "images").iterdir())) == 2


def test_batches_are_mapped_not_held_and_select_composes(photos):
    held = task(photos())
    split = held.train
    assert split.images.untyped_storage().nbytes() == 40 * 3 * 12 * 10  # bytes, once, for all splits
    assert held.val.images is split.images
    part = split.select(torch.tensor([5, 3])).select(torch.tensor([1]))
    (x, y), (whole, labels) = next(part.batches(9)), next(split.batches(9))
    assert torch.equal(x[0], whole[3])
    assert y[0] == labels[3]
    shuffled = torch.cat([t for _, t in split.batches(4, shuffle=True, seed=1)])
    again = torch.cat([t for _, t in split.batches(9, shuffle=True, seed=1)])
    assert torch.equal(shuffled, again)
    assert not torch.equal(shuffled, split.targets)


def test_size_channels_and_limit(photos):
    root = photos()
    assert task(root, size=16).input_shape == (3, 16, 16)
    assert task(root, size="8x9", channels=1).input_shape == (1, 8, 9)
    held = task(root, limit=10)
    assert len(held.train) == 10
    assert len(held.val) == 6
    assert held.val.images.shape[0] == 22  # what is not used is not decoded


def test_grey_pictures_have_one_channel(photos):
    assert task(photos(mode="L")).input_shape == (1, 12, 10)


def test_pictures_are_turned_upright_and_deep_grey_keeps_its_range():
    wide = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown, this is 4 high and 3 wide
    out = io.BytesIO()
    wide.save(out, "png", exif=exif)
    upright = pixels(out.getvalue(), (1, 4, 3))
    assert np.array_equal(upright[0], np.rot90(np.asarray(wide), -1))
    deep = np.array([[0, 256 * 7], [256 * 100, 65535]], dtype=np.uint16)
    out = io.BytesIO()
    Image.fromarray(deep).save(out, "png")
    assert pixels(out.getvalue(), (1, 2, 2)).tolist() == [[[0, 7], [100, 255]]]


def test_what_a_killed_run_left_is_swept_after_a_day(photos, cache):
    parent = cache / "netwright" / "images"
    for name, age in ((".making-old", 90_000), (".making-new", 60)):
        (parent / name).mkdir(parents=True)
        os.utime(parent / name, (time.time() - age,) * 2)
    task(photos())
    assert not (parent / ".making-old").exists()
    assert (parent / ".making-new").exists()


def test_an_image_of_too_many_pixels_is_broken():
    out = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(out, "png")
    with pytest.raises(Broken, match="more than 50,000,000 pixels"):
        pixels(out.getvalue(), (1, 8, 8))


def broken_by(root: Path, name: str, data: bytes) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(data)


@pytest.mark.parametrize("data", ["", "no image at all", "half"])
def test_broken_pictures_are_named_and_nothing_is_kept(photos, cache, data):
    root = photos()
    for i in range(5):
        whole = (root / "cat" / f"00{i}.png").read_bytes()
        broken_by(root, f"cat/00{i}.png", whole[: len(whole) // 2] if data == "half" else data.encode())
    with pytest.raises(BadInput) as error:
        task(root)
    message = str(error.value)
    assert "5 of 40 images are broken: cat/000.png" in message
    assert "and 2 more. Remove or replace them" in message
    assert "\n" not in message
    assert not list((cache / "netwright" / "images").iterdir())


def test_a_picture_with_garbage_for_exif_is_named(photos):
    """A PNG whose pixels are whole and whose eXIf chunk is not: refused like any other damage."""
    root = photos()
    whole = photos.picture(7)
    chunk = b"eXIf" + b"no TIFF header at all"
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    after_header = 8 + 25  # the signature and IHDR
    broken_by(root, "cat/000.png", whole[:after_header] + chunk + whole[after_header:])
    with pytest.raises(BadInput, match=r"1 of 40 images are broken: cat/000\.png"):
        task(root)
    with pytest.raises(Broken, match="damaged EXIF"):
        header((root / "cat" / "000.png").read_bytes())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_may_not_be_read_is_one_line(photos):
    root = photos()
    for closed in (root / "dog", root):
        closed.chmod(0)
        try:
            with pytest.raises(BadInput, match="Permission denied"):
                task(root)
        finally:
            closed.chmod(0o755)


def test_faults_of_a_folder_are_one_line(photos, tmp_path):
    root = photos()
    cases = [
        (tmp_path / "nothing", "holds no images"),
        (root / "cat", "lies in no class folder"),
    ]
    (tmp_path / "nothing").mkdir()
    for path, message in cases:
        with pytest.raises(BadInput, match=message):
            task(path)
    shutil.rmtree(root / "dog")
    with pytest.raises(BadInput, match="one class only"):
        task(root)


def test_too_few_to_divide(photos):
    with pytest.raises(BadInput, match="split is empty"):
        task(photos(each=2))


def test_a_class_of_the_test_folder_only(photos):
    root = photos(roles=("train", "test"), each=6)
    broken_by(root, "test/newt/0.png", photos.picture(1))
    with pytest.raises(BadInput, match=r"'newt' of 'test/newt/0\.png' does not occur in the training split"):
        task(root)


segments = st.sampled_from(
    ["train", "test", "val", "cat", "dog", "a b", ".hidden", "__MACOSX", "x.png", "y.JPG"]
)


@given(st.lists(st.lists(segments, min_size=1, max_size=4).map("/".join), max_size=12, unique=True))
def test_any_paths_are_arranged_or_refused(names):
    try:
        layout = arrange(names, "x")
    except BadInput as error:
        message = str(error)
    else:
        message = ""
        assert set(layout.names) == {n for n in names if is_picture(n)}
        for name, label, role in zip(layout.names, layout.labels, layout.roles, strict=True):
            assert layout.classes[label] in name.split("/")
            assert role in ("", "train", "val", "test")
        assert list(layout.classes) == sorted(layout.classes)
    assert "\n" not in message


@given(
    st.one_of(st.text(max_size=8), st.integers(-3, 99), st.tuples(st.integers(-3, 99), st.integers(-3, 99)))
)
def test_any_size_is_parsed_or_refused(size):
    try:
        height, width = parse_size(size)
    except BadInput:
        return
    assert height > 0
    assert width > 0
