"""Data sets by name: splits, normalisation, errors; the real files where they are at hand."""

from __future__ import annotations

import gzip
import subprocess
import sys

import numpy as np
import pytest
import torch

from netwright.core.division import cut
from netwright.core.errors import BadInput
from netwright.data import listing, names, task


def all_inputs(split) -> torch.Tensor:
    return torch.cat([x for x, _ in split.batches(1000)])


def test_digits_needs_nothing_and_is_divided_by_class():
    held = task("digits")
    assert (len(held.train), len(held.val), len(held.test)) == (1079, 359, 359)
    assert held.division == "ours"
    assert held.input_shape == (1, 8, 8)
    assert held.outputs == 10
    assert held.meaning == "image"
    for split in (held.train, held.val, held.test):
        counts = torch.bincount(split.targets, minlength=10).double()
        assert counts.max() / counts.min() < 1.1
    x = all_inputs(held.train)
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01


def test_no_example_is_in_two_splits():
    held = task("digits", seed=3)
    rows = torch.cat([s.inputs[0].flatten(1) for s in (held.train, held.val, held.test)])
    assert len(rows) == 1797
    again = task("digits", seed=3)
    assert torch.equal(again.train.inputs[0], held.train.inputs[0])
    assert not torch.equal(task("digits", seed=4).train.inputs[0], held.train.inputs[0])


def test_a_limit_takes_training_examples_only_and_smaller_is_inside_larger():
    train = torch.arange(0, 1000, 2)
    large, small = cut(train, 0, 300), cut(train, 0, 100)
    assert (len(large), len(small)) == (300, 100)
    assert set(small.tolist()) < set(large.tolist()) < set(train.tolist())
    whole, part = task("digits"), task("digits", limit=50)
    assert torch.equal(part.val.inputs[0], whole.val.inputs[0])
    assert len(task("digits", limit="50").train) == 50


def test_unseen_rows_judge_a_named_set_too(tmp_path):
    whole = task("digits")
    x, y = whole.test.inputs[0][:100].numpy(), whole.test.targets[:100].numpy()
    path = tmp_path / "fresh.npz"
    for labels in (y, np.array(whole.classes)[y]):
        np.savez(path, x=x[:, 0], y=labels)
        held = task("digits", unseen=path)
        assert (held.division, len(held.train), len(held.val), len(held.test)) == ("halved", 1079, 50, 50)
        given = {row.tobytes(): label for row, label in zip(x, y.tolist(), strict=True)}
        for row, label in zip(held.val.inputs[0].numpy(), held.val.targets.tolist(), strict=True):
            assert given[row.tobytes()] == label
        assert next(held.val.batches(9))[0].max() < 5  # normalised as the set is
    for arrays, message in (
        (
            {"x": x[:, 0, :7], "y": y},
            r"x has shape \(1, 7, 8\) and type uint8, the inputs of 'digits' \(1, 8, 8\)",
        ),
        ({"x": x / 16, "y": y}, "type float32"),
        ({"x": x, "y": y + 3}, "labels out of range: 'digits' has the classes 0 to 9"),
        ({"x": x, "y": np.full(100, "ten")}, "'ten' is no class of 'digits'"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(BadInput, match=message):
            task("digits", unseen=path)
    with pytest.raises(BadInput, match="no such file"):
        task("digits", unseen=tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digitz", {}, "no task named 'digitz'. Did you mean 'digits'? `netwright data` lists them; a path"),
        ("somewhere/mine.npz", {}, "somewhere/mine.npz: no such file"),
        ("digits", {"limti": 3}, "Did you mean 'limit'"),
        ("digits", {"limit": 0}, "limit must be at least 1"),
        ("digits", {"limit": "many"}, "limit must be a number"),
    ],
)
def test_bad_use_is_one_line(name, options, message):
    with pytest.raises(BadInput) as error:
        task(name, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_set_that_is_not_at_hand_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv("NETWRIGHT_DATA", raising=False)
    with pytest.raises(BadInput, match="netwright data get mnist"):
        task("mnist")
    rows = {row["name"]: row for row in listing()}
    assert rows["digits"]["at hand"] == "yes"
    assert rows["mnist"]["at hand"] == "netwright data get mnist"


def test_the_list_is_quick_because_it_imports_no_torch():
    code = "import sys; from netwright.data import listing; listing(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert names()[0] == "digits"


@pytest.mark.parametrize(("name", "folder"), [("mnist", "mnist"), ("fashion-mnist", "fashion_mnist")])
def test_the_mnist_family(name, folder, needs_data):
    needs_data(folder)
    held = task(name, limit=2000)
    assert len(held.train) == 2000
    assert held.division == "halved"
    assert len(held.test) == len(held.val) == 5000
    assert torch.bincount(held.test.targets).sub(torch.bincount(held.val.targets)).abs().max() <= 1
    assert len(task(name).train) == 60_000
    x = all_inputs(held.train)
    assert x.shape == (2000, 1, 28, 28)
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.05
    assert held.train.inputs[0].dtype == torch.uint8


@pytest.mark.data("sentence_classification")
def test_sst2_is_words_with_the_official_splits():
    held = task("sst2")
    assert (len(held.train), len(held.val)) == (6920, 872)
    assert held.division == "given"
    assert held.input_shape == (48,)
    x = held.train.inputs[0]
    assert x.dtype == torch.int64
    assert int(x.max()) < 8192
    assert int(x.min()) == 0
    assert (held.val.inputs[0] == 1).float().mean() < 0.06  # few unknown words
    assert "of 1,821" in held.note or len(held.test) == 1821


@pytest.mark.parametrize(
    ("part", "message"),
    [(0.0, "the val split is empty"), (0.5, "truncated or no gzip file"), (0.99, "truncated")],
)
def test_a_truncated_sst2_is_one_line(tmp_path, monkeypatch, part, message):
    monkeypatch.setenv("NETWRIGHT_DATA", str(tmp_path))
    monkeypatch.setenv("NETWRIGHT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "sentence_classification"
    folder.mkdir()
    content = gzip.compress("".join(f"{i % 2} a film of {i} words\n" for i in range(500)).encode())
    for role in ("train", "dev", "test-two-thirds"):
        (folder / f"stsa.binary.{role}.gz").write_bytes(content)
    assert len(task("sst2").val) == 500
    (folder / "stsa.binary.dev.gz").write_bytes(content[: int(part * len(content))])
    with pytest.raises(BadInput, match=message) as error:
        task("sst2")
    assert "\n" not in str(error.value)
