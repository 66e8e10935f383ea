"""Networks as other tools write them, opened with the data that they are for."""

import csv

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from netwright.app.feeding.opening import open_subject
from netwright.app.screen import View
from netwright.core.budget import within
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.files.load import load
from netwright.core.metrics import evaluate
from netwright.core.split import ArraySplit
from netwright.core.task import Task

RNG = np.random.default_rng(0)


def opened(model, task, **more):
    return open_subject(str(model), str(task), 0, None, View(quiet=True), **more)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A table of two numbers and a text, and a file with an input for each of the three, a label and probabilities."""
    folder = tmp_path_factory.mktemp("pipeline")
    n = 400
    age, weight = RNG.normal(40, 10, n), RNG.normal(0, 1, n)
    town = RNG.choice(["north", "south"], n)
    score = (age - 40) / 10 + weight + 2 * (town == "south") - 1
    with (folder / "people.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["weight", "town", "ill", "age"])
        out.writerows(zip(weight, town, np.where(score > 0, "yes", "no"), age, strict=True))
    ml = {"domain": "ai.onnx.ml"}
    nodes = [
        helper.make_node("Scaler", ["age"], ["a"], offset=[40.0], scale=[0.1], **ml),
        helper.make_node("OneHotEncoder", ["town"], ["t3"], cats_strings=["north", "south"], **ml),
        helper.make_node("Reshape", ["t3", "two"], ["t"]),
        helper.make_node("Concat", ["a", "weight", "t"], ["x"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"], axis=1),
        helper.make_node("ArgMax", ["p"], ["label"], axis=1),
    ]
    weights = np.array([[0, 3], [0, 3], [3, 0], [0, 3]], np.float32)
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(k, t, [None, 1]) for k, t in (("age", 1), ("town", 8), ("weight", 1))],
        [helper.make_tensor_value_info("label", 7, None), helper.make_tensor_value_info("p", 1, None)],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([-1, 2]), "two")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "p.onnx")
    return folder


def test_a_network_that_names_its_inputs_gets_these_columns(pipeline):
    subject = opened(pipeline / "p.onnx", pipeline / "people.csv", task_options={"target": "ill"})
    assert [i.name for i in subject.task.inputs] == ["age", "town", "weight"]
    assert evaluate(subject.network, subject.task)["accuracy"] > 0.95
    assert "logits" in subject.note


def test_columns_that_a_table_lacks_are_named_with_those_that_it_has(pipeline, tmp_path):
    text = (pipeline / "people.csv").read_text().replace("weight", "mass")
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(
        BadInput, match=r"takes age, town, weight; .* no column 'weight', it has mass, town, age"
    ):
        opened(pipeline / "p.onnx", tmp_path / "other.csv", task_options={"target": "ill"})


def test_several_inputs_by_the_names_of_the_file(tmp_path):
    class Two(nn.Module):
        def forward(self, right, left):
            return torch.stack([left.sum(1), right.sum(1)], 1)

    x = torch.randn(3, 4)
    torch.onnx.export(
        Two(), (x, x), tmp_path / "two.onnx", dynamo=False, input_names=["right", "left"], output_names=["y"],
        dynamic_axes={"right": {0: "b"}, "left": {0: "b"}},
    )  # fmt: skip
    left, right = (RNG.normal(size=(300, 4)).astype(np.float32) for _ in range(2))
    np.savez(tmp_path / "d.npz", left=left, right=right, y=(right.sum(1) > left.sum(1)).astype(int))
    subject = opened(tmp_path / "two.onnx", tmp_path / "d.npz")
    assert [i.name for i in subject.task.inputs] == ["right", "left"]
    assert evaluate(subject.network, subject.task)["accuracy"] == 1.0


def test_bytes_and_channels_last(tmp_path):
    """A file that takes NHWC bytes and scales them itself."""
    weight = numpy_helper.from_array(np.array([[1, -1], [-1, 1], [0, 0]], np.float32) * 20, "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=1),
        helper.make_node("Mul", ["f", "unit"], ["u"]),
        helper.make_node("ReduceMean", ["u"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, 6, 7, 3])],
        [helper.make_tensor_value_info("y", 1, [None, 2])],
        [weight, numpy_helper.from_array(np.array([1 / 255], np.float32), "unit")],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "b.onnx",
    )
    x = RNG.integers(0, 200, (200, 6, 7, 3)).astype(np.uint8)
    y = np.arange(200) % 2
    x[np.arange(200), :, :, y] += 50
    np.savez(tmp_path / "d.npz", x=x, y=y)
    subject = opened(tmp_path / "b.onnx", tmp_path / "d.npz")
    assert evaluate(subject.network, subject.task)["accuracy"] > 0.95
    assert "bytes" in subject.note
    assert "NHWC" in subject.note
    assert subject.task.raw().example()[0].shape == (1, 6, 7, 3)


def test_double_precision_is_said(tmp_path):
    x = RNG.normal(size=(300, 4)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=(x[:, 0] > 0).astype(int))
    net = nn.Linear(4, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-5.0, 0, 0, 0], [5.0, 0, 0, 0]]))
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(
        torch.export.export(net, (torch.randn(3, 4).double(),), dynamic_shapes=(batch,)), tmp_path / "n.pt2"
    )
    subject = opened(tmp_path / "n.pt2", tmp_path / "d.npz")
    assert "float64" in subject.note
    assert next(load(tmp_path / "n.pt2").parameters()).dtype == torch.float64
    assert next(subject.network.parameters()).dtype == torch.float32


def test_a_network_trained_here_that_learned_nothing_in_its_time_is_no_answer_and_not_kept(tmp_path):
    task = Task.from_arrays(RNG.normal(size=(400, 5)).astype(np.float32), np.arange(400) % 2)
    with within(0), pytest.raises(BadInput, match="has learned nothing in 0 s; give a larger --budget"):
        open_subject(None, task, 0, tmp_path, View(quiet=True))
    assert not list(tmp_path.iterdir())
    assert not open_subject(None, task, 0, tmp_path, View(quiet=True)).given
    assert len(list(tmp_path.iterdir())) == 1


def test_a_task_with_an_answer_at_every_position_is_one_clear_line():
    part = ArraySplit((torch.zeros(4, 6, dtype=torch.int64),), torch.zeros(4, 6, dtype=torch.int64))
    task = Task("letters", "classification", part, part, part, 3, meaning="tokens")
    with pytest.raises(NotApplicable, match="'letters' asks for an answer at every position"):
        open_subject(None, task, 0, None, View(quiet=True))
