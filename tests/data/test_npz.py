"""The user's arrays: what is accepted, and one clear line for what is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from netwright.core.errors import BadInput
from netwright.data import task

X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
Y = np.arange(60) % 3


def saved(folder, **arrays):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return path


def test_x_and_y_are_divided(tmp_path):
    held = task(saved(tmp_path, x=X, y=Y))
    assert held.kind == "classification"
    assert held.outputs == 3
    assert held.meaning == "table"
    assert len(held.train) + len(held.val) + len(held.test) == 60
    assert len(held.val) == len(held.test) == 9
    assert held.normalise is None
    assert held.train.inputs[0].dtype == torch.float32
    rows = {tuple(r) for s in (held.train, held.val, held.test) for r in s.inputs[0].tolist()}
    assert rows == {tuple(r) for r in X.tolist()}


@pytest.mark.parametrize("role", ["val", "test"])
def test_the_one_of_val_and_test_that_is_given_is_halved_and_train_stays(tmp_path, role):
    """A network that learned x_train by heart must not be judged on any of it."""
    fresh = X[:30] + 100
    held = task(saved(tmp_path, x_train=X, y_train=Y, **{f"x_{role}": fresh, f"y_{role}": Y[:30]}))
    assert held.division == "halved"
    assert torch.equal(held.train.inputs[0], torch.from_numpy(X))
    assert len(held.val) == len(held.test) == 15
    rows = torch.cat([held.val.inputs[0], held.test.inputs[0]])
    assert sorted(rows.tolist()) == sorted(fresh.tolist())
    for split in (held.val, held.test):
        assert torch.bincount(split.targets).tolist() == [5, 5, 5]


def test_a_pool_is_divided_by_us_and_all_three_given_stay(tmp_path):
    assert task(saved(tmp_path, x=X, y=Y)).division == "ours"
    assert task(saved(tmp_path, x_train=X, y_train=Y)).division == "ours"
    held = task(saved(tmp_path, x_train=X, y_train=Y, x_val=X[:9], y_val=Y[:9], x_test=X[:7], y_test=Y[:7]))
    assert held.division == "given"
    assert (len(held.train), len(held.val), len(held.test)) == (60, 9, 7)


@pytest.mark.parametrize("suffix", ["", "_test"])
def test_unseen_rows_judge_and_the_pool_is_all_for_training(tmp_path, suffix):
    names = np.array(["ok", "scratch", "dent"])
    fresh = tmp_path / "fresh.npz"
    np.savez(fresh, **{f"x{suffix}": X[:20] + 100, f"y{suffix}": names[Y[:20]]})
    held = task(saved(tmp_path, x=X, y=names[Y]), unseen=fresh)
    assert held.division == "halved"
    assert len(held.train) == 60
    for split in (held.val, held.test):
        assert len(split) == 10
        place = (split.inputs[0] - 100).tolist()
        for row, label in zip(place, split.targets.tolist(), strict=True):
            nearest = np.abs(X[:20] - np.array(row)).sum(1).argmin()
            assert held.classes[label] == names[Y[nearest]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X[:, :3], "y": Y}, "x of test has shape (3,), that of train (5,)"),
        ({"x": X}, "has no array 'y'"),
        ({"x": X, "y": Y + 7}, "labels out of range: 9 in test"),
    ],
)
def test_unseen_rows_of_another_form_are_one_line(tmp_path, arrays, message):
    fresh = tmp_path / "fresh.npz"
    np.savez(fresh, **arrays)
    with pytest.raises(BadInput) as error:
        task(saved(tmp_path, x=X, y=Y), unseen=fresh)
    assert message in str(error.value)


def test_several_inputs_come_under_the_networks_own_names(tmp_path):
    left, right = X, np.arange(60 * 4).reshape(60, 4) % 11
    path = saved(tmp_path, right=right, left=left, y=Y)
    held = task(path, inputs=("right", "left"))
    assert [i.name for i in held.inputs] == ["right", "left"] == [i.name for i in held.signature.inputs]
    assert held.input_shapes == ((4,), (5,))
    assert [t.dtype for t in held.train.inputs] == [torch.int64, torch.float32]
    rows = {tuple(map(float, [*a, *b])) for a, b in zip(left, right, strict=True)}
    (second, first), _ = next(held.test.batches(99))
    assert {tuple(map(float, [*a, *b])) for a, b in zip(first, second, strict=True)} <= rows
    assert [i.name for i in task(path).inputs] == ["left", "right"]
    with pytest.raises(
        BadInput, match=r"no array 'middle'; the network takes left, middle, and the file holds"
    ):
        task(path, inputs=("left", "middle"))


def test_several_inputs_in_given_splits(tmp_path):
    both = {f"{n}_{r}": X for n in ("a", "b") for r in ("train", "val")}
    held = task(saved(tmp_path, **both, y_train=Y, y_val=Y))
    assert (held.division, len(held.train), len(held.val), len(held.inputs)) == ("halved", 60, 30, 2)
    with pytest.raises(BadInput, match="no array 'b_val'"):
        task(saved(tmp_path, y_train=Y, y_val=Y, **{k: v for k, v in both.items() if k != "b_val"}))


@pytest.mark.parametrize(
    ("shape", "kind", "layout"),
    [((60, 9, 8, 3), "u1", "CHW"), ((60, 9, 8), "u1", "CHW"), ((60, 3, 9, 8), "f8", "CHW"),
     ((60, 9, 8, 1), "f4", "HWC"), ((60, 5), "f4", "F"), ((60, 9, 8), "f4", ""), ((60, 3, 8, 3), "f4", "CHW")],
)  # fmt: skip
def test_the_layout_says_what_is_known(tmp_path, shape, kind, layout):
    held = task(saved(tmp_path, x=np.ones(shape, kind), y=Y))
    assert held.signature.inputs[0].layout == layout
    assert held.train.inputs[0].dtype == (torch.uint8 if kind == "u1" else torch.float32)


@pytest.mark.parametrize("shape", [(60, 9, 8, 3), (60, 3, 9, 8), (60, 9, 8), (60, 1, 9, 8)])
def test_bytes_are_images_and_are_normalised_by_the_training_split(tmp_path, shape):
    x = np.random.default_rng(1).integers(0, 200, shape, dtype=np.uint8)
    held = task(saved(tmp_path, x=x, y=Y))
    channels = 3 if 3 in (shape[1], shape[-1]) else 1
    assert held.input_shape == (channels, 9, 8)
    assert held.meaning == "image"
    seen = torch.cat([b for b, _ in held.train.batches(64)])
    assert torch.allclose(seen.mean((0, 2, 3)), torch.zeros(channels), atol=1e-4)
    assert torch.allclose(seen.std((0, 2, 3)), torch.ones(channels), atol=1e-2)
    assert held.train.inputs[0].dtype == torch.uint8


@pytest.mark.parametrize(
    ("y", "kind", "outputs"),
    [
        (np.array(["ok", "scratch", "dent"])[Y], "classification", 3),
        (Y.astype(np.float64), "classification", 3),
        (Y == 1, "classification", 2),
        (Y.astype(np.uint8)[:, None], "classification", 3),
        (np.random.default_rng(0).normal(size=60), "regression", 1),
        (np.random.default_rng(0).normal(size=(60, 2)), "regression", 2),
        ((np.random.default_rng(0).random((60, 4)) > 0.5).astype(int), "multilabel", 4),
    ],
)
def test_targets_as_people_store_them(tmp_path, y, kind, outputs):
    held = task(saved(tmp_path, x=X, y=y))
    assert (held.kind, held.outputs) == (kind, outputs)
    if y.dtype.kind == "U":
        assert held.classes == ("dent", "ok", "scratch")
        named = np.array(held.classes)[held.train.targets.numpy()]
        position = {tuple(r): str(n) for r, n in zip(X.tolist(), y, strict=True)}
        assert [position[tuple(r)] for r in held.train.inputs[0].tolist()] == named.tolist()


def with_nan(values, what=np.nan):
    changed = values.copy()
    changed[4] = what
    return changed


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": with_nan(X), "y": Y}, "NaN or Inf in 1 of"),
        ({"x": with_nan(X, np.inf), "y": Y}, "NaN or Inf"),
        ({"x": X, "y": with_nan(Y.astype(float))}, "NaN or Inf in 1 examples"),
        ({"x": X, "y": Y - 1}, "labels out of range: -1"),
        ({"x": X, "y": with_nan(Y, 9000)}, "labels out of range: 9000"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "labels out of range: 3 in test"),
        ({"x": X, "y": Y * 0}, "one class only"),
        ({"x": X, "y": Y[:50]}, "x has 60 examples, y has 50"),
        ({"x": X[:, 0], "y": Y}, "has shape (60,)"),
        ({"x": X}, "has no array 'y'; it holds x"),
        ({"a": X}, "has no array 'y'; it holds a"),
        ({"x_train": X, "y_train": Y, "x_val": X}, "has no array 'y_val'"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :3], "y_test": Y}, "x of test has shape (3,)"),
        ({"x": X[:0], "y": Y[:0]}, "x is empty"),
        ({"x": X[:4], "y": Y[:4]}, "split is empty"),
        ({"x": X.astype(object), "y": Y}, "Python objects, which could run code"),
        ({"x": X.astype(str), "y": Y}, "not numbers"),
        ({"x_train": X, "y_train": np.array(["a", "b"])[Y % 2], "x_val": X[:2], "y_val": np.array(["a", "c"])},
         "class 'c' occurs in val"),
    ],
)  # fmt: skip
def test_bad_arrays_are_one_line(tmp_path, arrays, message):
    with pytest.raises(BadInput) as error:
        task(saved(tmp_path, **arrays))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
def test_a_truncated_file_is_one_line(tmp_path, keep):
    path = saved(tmp_path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput) as error:
        task(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bare_array_and_a_pickle_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with open(path, "wb") as file:
        np.save(file, X)
    with pytest.raises(BadInput, match=r"np.savez"):
        task(path)
    path.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.")
    with pytest.raises(BadInput):
        task(path)


def arrays_of(kinds, **shape):
    """Arrays with numbers of a size that can be squared."""
    bounds = {"min_value": -1e6, "max_value": 1e6}
    return st.sampled_from(kinds).flatmap(
        lambda kind: arrays(
            kind, array_shapes(**shape), elements=bounds if np.dtype(kind).kind == "f" else None
        )
    )


@given(
    x=arrays_of([np.float32, np.float64, np.int16, np.uint8, np.bool_], max_dims=4, max_side=12),
    y=arrays_of([np.float32, np.int8, np.uint8, "U2"], max_dims=2, max_side=12),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_arrays_make_a_task_or_one_clear_error(tmp_path, x, y):
    path = saved(tmp_path, x=x, y=y)
    try:
        held = task(path)
    except BadInput as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
    if message:
        return
    assert sum(len(s) for s in (held.train, held.val, held.test)) == len(x)
    for inputs, targets in held.val.batches(4):
        assert torch.isfinite(inputs.float()).all()
        assert held.loss(torch.zeros(len(targets), held.outputs), targets).isfinite()
