"""Operators of ai.onnx.ml, as skl2onnx writes them, against ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from netwright.core.errors import UnsupportedOperator
from netwright.core.files.facts import facts_of
from netwright.core.files.load import load

RNG = np.random.default_rng(0)
ML = "ai.onnx.ml"
FLOAT, INT, TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def node(op, inputs, outputs, **attributes):
    ours = op in {"MatMul", "Add", "Relu", "Softmax", "Sigmoid", "Sub", "Concat", "ArgMax", "Cast", "Reshape"}
    return helper.make_node(op, inputs, outputs, domain="" if ours else ML, **attributes)


def save(path, nodes, inputs, outputs, held=(), opset=17, ml=3):
    """inputs: name -> (type, width); outputs: name -> type."""
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, kind, [None, width]) for n, (kind, width) in inputs.items()],
        [helper.make_tensor_value_info(n, kind, None) for n, kind in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in dict(held).items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML, ml)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return str(path)


def dense(x, y, into, out):
    """Nodes and tensors of x @ W + b."""
    held = {
        f"{y}_w": RNG.normal(size=(into, out)).astype(np.float32),
        f"{y}_b": RNG.normal(size=out).astype(np.float32),
    }
    return [node("MatMul", [x, f"{y}_w"], [f"{y}_m"]), node("Add", [f"{y}_m", f"{y}_b"], [y])], held


STEPS = {
    "Scaler": {"offset": [0.5, -1.0, 2.0, 0.0], "scale": [2.0, 0.1, 1.0, -3.0]},
    "Normalizer L1": {"norm": "L1"},
    "Normalizer L2": {"norm": "L2"},
    "Imputer": {"imputed_value_floats": [1.0, 2.0, 3.0, 4.0], "replaced_value_float": float("nan")},
    "Binarizer": {"threshold": 0.2},
}


@pytest.mark.parametrize("opset", [9, 13, 21])
@pytest.mark.parametrize("step", STEPS)
def test_steps_on_numbers(step, opset, tmp_path):
    nodes, held = dense("s", "y", 4, 3)
    path = save(
        tmp_path / "n.onnx", [node(step.split()[0], ["x"], ["s"], **STEPS[step]), *nodes], {"x": (FLOAT, 4)},
        {"y": FLOAT}, held, opset, ml=1,
    )  # fmt: skip
    x = RNG.normal(size=(20, 4)).astype(np.float32)
    if step == "Imputer":
        x[::3, 1] = np.nan
    expected = onnxruntime.InferenceSession(path).run(None, {"x": x})[0]
    torch.testing.assert_close(
        load(path)(torch.from_numpy(x)), torch.from_numpy(expected), rtol=1e-4, atol=1e-5
    )


def test_columns_of_numbers_and_texts(tmp_path):
    """Texts become their codes in the file's vocabulary; one that it does not know has none."""
    more, held = dense("all", "y", 9, 2)
    nodes = [
        node("OneHotEncoder", ["town"], ["t3"], cats_strings=["north", "east", "west"], zeros=1),
        node("OneHotEncoder", ["kind"], ["k3"], cats_int64s=[7, 2, 5], zeros=1),
        node(
            "LabelEncoder", ["size"], ["s1"], keys_strings=["s", "m", "l"], values_floats=[0.5, 1.5, 4.0],
            default_float=-1.0,
        ),
        node("Reshape", ["t3", "three"], ["t"]), node("Reshape", ["k3", "three"], ["k"]),
        node("FeatureVectorizer", ["age", "s1", "one"], ["n"], inputdimensions=[1, 1, 1]),
        node("ArrayFeatureExtractor", ["n", "pick"], ["n2"]),
        node("Concat", ["t", "k", "n"], ["all"], axis=1), *more,
    ]  # fmt: skip
    held |= {"three": np.array([-1, 3]), "pick": np.array([1, 0])}
    path = save(
        tmp_path / "n.onnx", nodes,
        {"age": (FLOAT, 1), "town": (TEXT, 1), "kind": (INT, 1), "size": (TEXT, 1), "one": (FLOAT, 1)}, {"y": FLOAT},
        held,
    )  # fmt: skip
    network = load(path)
    words = facts_of(network)["vocabulary"]
    assert words == ("east", "l", "m", "north", "s", "west")
    assert facts_of(network)["types"] == ["float32", "text", "int64", "text", "float32"]
    age, one = (RNG.normal(size=(30, 1)).astype(np.float32) for _ in range(2))
    town = RNG.choice(["north", "east", "west", "nowhere"], (30, 1)).astype(object)
    size, kind = RNG.choice(["s", "m", "l"], (30, 1)).astype(object), RNG.integers(0, 9, (30, 1))
    given = {"age": age, "town": town, "kind": kind, "size": size, "one": one}
    expected = onnxruntime.InferenceSession(path).run(None, given)[0]
    code = lambda texts: torch.tensor([[words.index(t) if t in words else len(words)] for t in texts[:, 0]])
    got = network(
        torch.from_numpy(age), code(town), torch.from_numpy(kind), code(size), torch.from_numpy(one)
    )
    torch.testing.assert_close(got, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def classifier(path, classes, zipmap, binary=False):
    """Scaler and a network with a label and probabilities."""
    more, held = dense("s", "z", 4, 1 if binary else classes)
    held["unity"] = np.ones((1, 1), np.float32)
    last = (
        [
            node("Sigmoid", ["z"], ["q"]), node("Sub", ["unity", "q"], ["no"]),
            node("Concat", ["no", "q"], ["p"], axis=1),
        ] if binary else [node("Softmax", ["z"], ["p"], axis=1)]
    )  # fmt: skip
    names = [f"class {i}" for i in range(classes)]
    label = [
        node("ArgMax", ["p"], ["best"], axis=1),
        node("ArrayFeatureExtractor", ["names", "best"], ["label"]),
    ]
    held["names"] = np.array(names, dtype=object)
    nodes = [node("Scaler", ["x"], ["s"], offset=[0.1], scale=[2.0]), *more, *last, *label]
    if not zipmap:
        return save(path, nodes, {"x": (FLOAT, 4)}, {"label": TEXT, "p": FLOAT}, held)
    model = onnx.load(
        save(
            path,
            [*nodes, node("ZipMap", ["p"], ["map"], classlabels_strings=names)],
            {"x": (FLOAT, 4)},
            {"label": TEXT},
            held,
        )
    )
    keys = helper.make_map_type_proto(TEXT, helper.make_tensor_type_proto(FLOAT, []))
    model.graph.output.append(helper.make_value_info("map", helper.make_sequence_type_proto(keys)))
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize("zipmap", [False, True])
@pytest.mark.parametrize(("classes", "binary"), [(3, False), (2, True)])
def test_of_a_label_and_probabilities_the_logits_are_read(classes, binary, zipmap, tmp_path):
    path = classifier(tmp_path / "n.onnx", classes, zipmap, binary)
    x = RNG.normal(size=(20, 4)).astype(np.float32)
    given = onnxruntime.InferenceSession(path).run(None, {"x": x})[1]
    expected = np.array([list(row.values()) for row in given]) if zipmap else given
    network = load(path)
    got = network(torch.from_numpy(x))
    np.testing.assert_allclose(got.softmax(1).detach().numpy(), expected, atol=1e-5)
    assert not any("oftmax" in str(n.target) for n in network.graph.nodes)
    far = network(torch.full((1, 4), 1e4)).detach()  # where a probability is 0 to float32
    assert float(far.abs().max()) > 1000


@pytest.mark.parametrize("post", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_linear_classifier(post, tmp_path):
    weights, bias = RNG.normal(size=(3, 4)), RNG.normal(size=3)
    step = node(
        "LinearClassifier", ["x"], ["label", "p"], coefficients=weights.reshape(-1).tolist(), intercepts=bias.tolist(),
        classlabels_ints=[0, 1, 2], post_transform=post, multi_class=1,
    )  # fmt: skip
    normal = [node("Normalizer", ["p"], ["q"], norm="L1")] if post == "LOGISTIC" else []
    out = "q" if normal else "p"
    path = save(tmp_path / "n.onnx", [step, *normal], {"x": (FLOAT, 4)}, {"label": INT, out: FLOAT}, ml=1)
    x = RNG.normal(size=(20, 4)).astype(np.float32)
    expected = torch.from_numpy(onnxruntime.InferenceSession(path).run(None, {"x": x})[1])
    got = load(path)(torch.from_numpy(x))
    if post == "NONE":
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    else:
        torch.testing.assert_close(got.softmax(1), expected, rtol=1e-4, atol=1e-5)


def test_linear_regressor(tmp_path):
    step = node(
        "LinearRegressor",
        ["x"],
        ["y"],
        coefficients=RNG.normal(size=8).tolist(),
        intercepts=[1.0, 2.0],
        targets=2,
    )
    path = save(tmp_path / "n.onnx", [step], {"x": (FLOAT, 4)}, {"y": FLOAT}, ml=1)
    x = RNG.normal(size=(20, 4)).astype(np.float32)
    expected = torch.from_numpy(onnxruntime.InferenceSession(path).run(None, {"x": x})[0])
    torch.testing.assert_close(load(path)(torch.from_numpy(x)), expected, rtol=1e-4, atol=1e-5)


def test_trees_are_refused_in_a_line(tmp_path):
    step = node("TreeEnsembleRegressor", ["x"], ["y"], n_targets=1)
    path = save(tmp_path / "n.onnx", [step], {"x": (FLOAT, 4)}, {"y": FLOAT})
    with pytest.raises(UnsupportedOperator, match=r"ai\.onnx\.ml\.TreeEnsembleRegressor"):
        load(path)
