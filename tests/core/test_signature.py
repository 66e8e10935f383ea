"""A signature survives the way through a file, and says what a task's exported file takes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import netwright as nw
from netwright.core.errors import BadInput
from netwright.core.signature import Feature, Input, Signature

TABLE = Signature(
    "classification", "table",
    (Input("input", (3,), layout="F", features=(
        Feature("age", fill=38.0), Feature("sex", value="female"), Feature("port", codes=("C", "Q", "S")))),),
    "logits of 2 classes", ("no", "yes"), {"mean": [0.5], "std": [2.0], "scale": 1.0}, "survived", "median",
)  # fmt: skip


def test_it_survives_the_way_through_text():
    assert Signature.from_json(json.dumps(TABLE.to_json())) == TABLE
    assert Signature.from_json(TABLE.to_json()) == TABLE


@pytest.mark.parametrize(
    "damage", ["", "[]", "{}", '{"version": 1}', '{"version": 1, "inputs": 3, "classes": []}']
)
def test_a_damaged_one_is_refused(damage):
    with pytest.raises(BadInput, match="damaged"):
        Signature.from_json(damage)


def test_a_later_version_is_refused():
    with pytest.raises(BadInput, match="later version"):
        Signature.from_json({**TABLE.to_json(), "version": 99})


def test_a_task_says_what_its_file_takes():
    task = nw.task("digits")
    signature = task.signature
    (given,) = signature.inputs
    assert (given.shape, given.type) == ((1, 8, 8), "float32")
    assert signature.normalise["mean"] == pytest.approx([0.3053])
    assert signature.normalise["std"] == pytest.approx([0.3761])
    assert signature.normalise["scale"] == 1 / 16
    assert signature.classes == tuple("0123456789")
    assert "10 classes" in signature.outputs


def test_names_and_features_of_a_task_are_kept():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    task = nw.Task.from_arrays(x, (x[:, 0] > 0).astype(int))
    task = replace(task, inputs=TABLE.inputs, target="survived")
    assert task.signature.inputs == TABLE.inputs
    assert task.signature.target == "survived"
