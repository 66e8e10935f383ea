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


def test_given_splits_stay_and_the_missing_one_is_divided_off(tmp_path):
    held = task(saved(tmp_path, x_train=X, y_train=Y, x_test=X[:7] + 1, y_test=Y[:7]))
    assert len(held.test) == 7
    assert torch.equal(held.test.inputs[0], torch.from_numpy(X[:7] + 1))
    assert len(held.val) == 9
    assert len(held.train) == 51


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
        ({"x": X, "y": with_nan(Y, 900)}, "labels out of range: 900"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "labels out of range: 3 in test"),
        ({"x": X, "y": Y * 0}, "one class only"),
        ({"x": X, "y": Y[:50]}, "x has 60 examples, y has 50"),
        ({"x": X[:, 0], "y": Y}, "has shape (60,)"),
        ({"x": X}, "has no array 'y'; it holds x"),
        ({"a": X}, "has no array 'x'; it holds a"),
        ({"x_train": X, "y_train": Y, "x_val": X}, "has no array 'y_val'"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :3], "y_test": Y}, "test inputs have shape (3,)"),
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
