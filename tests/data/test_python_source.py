"""The library's own sources in windows of bytes: whole files in one split, every byte the next one's context."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from netwright.core.errors import BadInput
from netwright.data import python_source as source


def test_windows_overlap_by_one_byte():
    text = bytes(i % 251 for i in range(3 * source.CONTEXT + 50))
    found = source.windows(text)
    assert found.shape == (3, source.CONTEXT + 1)
    assert bytes(found[1].tolist()) == text[source.CONTEXT : 2 * source.CONTEXT + 1]
    assert source.windows(b"short").shape == (0, source.CONTEXT + 1)
    assert len(source.windows(bytes(source.CONTEXT + 1))) == 1
    assert len(source.windows(bytes(source.CONTEXT))) == 0


def test_a_file_is_in_one_split_and_held_out_splits_have_their_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source, "HELD", 10)
    files = [bytes([i]) * (5 * source.CONTEXT + 1) for i in range(20)]
    train, val, test = source.divided(files, 0)
    assert (len(train), len(val), len(test)) == (60, 10, 10)
    marks = [set(part.unique().tolist()) for part in (train, val, test)]
    assert sum(map(len, marks)) == len(set.union(*marks)) == 20
    again, other = source.divided(files, 0), source.divided(files, 1)
    assert all(torch.equal(a, b) for a, b in zip(again, (train, val, test), strict=True))
    assert not torch.equal(other[1], val)
    with pytest.raises(BadInput, match="too few of its own sources"):
        source.divided(files[:3], 0)


def test_what_is_installed_besides_is_left_out(tmp_path: Path):
    for name in ("b.py", "a.py", "json/c.py", "test/d.py", "json/tests/e.py", "site-packages/f.py", "g.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    assert source.sources(tmp_path) == [b"a.py", b"b.py", b"json/c.py"]


def test_the_task_asks_for_the_next_byte_everywhere(monkeypatch: pytest.MonkeyPatch):
    files = [bytes((7 * i + j) % 256 for j in range(40_000)) for i in range(12)]
    monkeypatch.setattr(source, "sources", lambda _: files)
    held = source.load(limit=30)
    assert (len(held.train), len(held.val), len(held.test)) == (30, 512, 512)
    (inputs, targets) = next(held.train.batches(4))
    assert inputs.shape == targets.shape == (4, source.CONTEXT)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.equal((inputs + 1) % 256, targets)
    assert held.input_shape == (source.CONTEXT,)
    assert len(held.classes) == held.outputs == 256
