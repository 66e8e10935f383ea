import os

import pytest
import torch

from netwright.core.errors import BadInput, CannotWrite
from netwright.core.files.checkpoint import atomic, load_state, save_state, together


def test_round_trip(tmp_path):
    tensors = {"a": torch.randn(3), "b": torch.tensor(2)}
    save_state(tmp_path / "deep" / "s.safetensors", tensors, {"epoch": 3})
    loaded, numbers = load_state(tmp_path / "deep" / "s.safetensors")
    assert all(torch.equal(loaded[k], tensors[k]) for k in tensors)
    assert numbers == {"epoch": 3}


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def half():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"not tensors at all", b"\xff" * 64])
def test_broken_files_are_one_error(tmp_path, content):
    path = tmp_path / "s.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="no complete safetensors"):
        load_state(path)


def test_a_missing_file_and_a_closed_folder(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        load_state(tmp_path / "none")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        save_state(blocked / "s.safetensors", {"a": torch.zeros(1)})


def test_files_appear_together_the_last_one_last(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    (tmp_path / ".new-killed").mkdir()
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda source, to: (moved.append(to.name), replace(source, to)))
    with together(tmp_path, last="a") as folder:
        for name in ("a", "c", "b"):
            (folder / name).write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert moved == ["b", "c", "a"]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys("abc", "new")


def test_a_failure_leaves_the_folder_as_it_was(tmp_path):
    (tmp_path / "a").write_text("old")

    def stopped():
        with together(tmp_path, last="a") as folder:
            (folder / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot write"), together(tmp_path / "file", last="a"):
        raise AssertionError("not reached")
