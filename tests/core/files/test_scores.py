import numpy as np
import pytest
import torch
from torch import nn

from netwright.calibrate.isotonic_calibration import IsotonicCalibration
from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.calibrate.vector_scaling import VectorScaling
from netwright.compress.distillation import Distillation
from netwright.core.budget import Budget
from netwright.core.files.export import export
from netwright.core.files.load import load
from netwright.core.files.scores import logs, scores_for
from netwright.core.measure.latency import onnx_session
from netwright.core.metrics import evaluate
from netwright.core.task import Task
from netwright.data import task as named_task

RNG = np.random.default_rng(0)


class Wrapped(nn.Module):
    """The body, and something done to what it gives."""

    def __init__(self, outputs, after):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.after = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, outputs)), after

    def forward(self, x):
        return self.after(self.body(x))


class Each(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def task_of(outputs=2, kind=None):
    x = RNG.normal(size=(200, 5)).astype(np.float32)
    y = RNG.integers(0, 2, (200, 3)) if kind == "multilabel" else np.arange(200) % outputs
    return Task.from_arrays(x, y, kind=kind)


def as_file(net, way, tmp_path):
    """The module itself, or what is read from its ONNX file or its exported program."""
    x = torch.randn(4, 5)
    batch = {0: torch.export.Dim("batch")}
    if way == "onnx":
        torch.onnx.export(net, (x,), tmp_path / "n.onnx", dynamo=True, dynamic_shapes=(batch,), verbose=False)
        return load(tmp_path / "n.onnx")
    if way == "pt2":
        torch.export.save(torch.export.export(net.eval(), (x,), dynamic_shapes=(batch,)), tmp_path / "n.pt2")
        return load(tmp_path / "n.pt2")
    return net


WAYS = pytest.mark.parametrize("way", ["module", "onnx", "pt2"])


@WAYS
def test_probabilities_become_logits(way, tmp_path):
    net = Wrapped(3, nn.Softmax(-1)).eval()
    task = task_of(3)
    network, same, said = scores_for(as_file(net, way, tmp_path), task)
    x = task.example(20)[0]
    assert same is task
    assert "probabilities" in said
    torch.testing.assert_close(network(x).softmax(1), net(x), rtol=1e-4, atol=1e-6)
    expected = (
        -net(next(iter(task.val.batches(999)))[0]).log().gather(1, task.val.targets[:, None]).mean().item()
    )
    assert evaluate(network, task)["nll"] == pytest.approx(expected, rel=1e-4)
    if way != "module":
        assert not any("oftmax" in str(n.target) for n in network.graph.nodes)


@WAYS
@pytest.mark.parametrize("flat", [False, True])
def test_one_probability_for_two_classes(way, flat, tmp_path):
    net = Wrapped(1, nn.Sequential(nn.Sigmoid(), *([nn.Flatten(0)] if flat else []))).eval()
    task = task_of()
    network, _, said = scores_for(as_file(net, way, tmp_path), task)
    x = task.example(20)[0]
    torch.testing.assert_close(network(x).softmax(1)[:, 1], net(x).reshape(-1), rtol=1e-4, atol=1e-6)
    assert "two logits" in said


def test_one_logit_for_two_classes():
    net = Wrapped(1, nn.Identity()).eval()
    network, _, said = scores_for(net, task := task_of())
    x = task.example(20)[0]
    torch.testing.assert_close(network(x).softmax(1)[:, 1], net(x)[:, 0].sigmoid(), rtol=1e-4, atol=1e-6)
    assert "logit" in said


@WAYS
def test_pictures_of_one_pixel(way, tmp_path):
    net = Wrapped(3, nn.Unflatten(1, (3, 1, 1))).eval()
    network, _, said = scores_for(as_file(net, way, tmp_path), task := task_of(3))
    x = task.example(20)[0]
    torch.testing.assert_close(network(x), net(x)[:, :, 0, 0], rtol=1e-4, atol=1e-5)
    assert "flattened" in said


@WAYS
def test_of_several_outputs_the_one_that_fits(way, tmp_path):
    net = Wrapped(3, Each(lambda x: (x.argmax(1), x, x @ torch.ones(3, 7)))).eval()
    network, _, _ = scores_for(as_file(net, way, tmp_path), task := task_of(3))
    x = task.example(20)[0]
    torch.testing.assert_close(network(x), net(x)[1], rtol=1e-4, atol=1e-5)


@WAYS
def test_probabilities_of_labels(way, tmp_path):
    net = Wrapped(3, nn.Sigmoid()).eval()
    network, _, _ = scores_for(as_file(net, way, tmp_path), task := task_of(kind="multilabel"))
    x = task.example(20)[0]
    torch.testing.assert_close(network(x).sigmoid(), net(x), rtol=1e-4, atol=1e-6)


def test_more_classes_than_occur():
    network, task, said = scores_for(net := Wrapped(9, nn.Identity()), task_of(4))
    assert network is net
    assert (task.outputs, len(task.classes)) == (9, 9)
    assert "9 classes" in said


def test_logits_and_values_stay():
    for net, task in (
        (Wrapped(3, nn.Identity()), task_of(3)),
        (
            Wrapped(1, nn.Sigmoid()),
            Task.from_arrays(RNG.normal(size=(99, 5)).astype(np.float32), RNG.normal(size=99)),
        ),
    ):
        assert scores_for(net, task) == (net, task, "")


def far(z):
    return z.sign() * 200


@pytest.mark.parametrize(
    ("kind", "way"),
    [("of two classes", "onnx"), ("of classes", "onnx"), ("of labels", "module"), ("of one", "module")],
)
def test_probabilities_of_exactly_0_are_finite_logits_in_the_files_too(kind, way, tmp_path):
    """Logits far apart, as a network has that is sure, or that is fed in other units than it learned. After the
    softmax or sigmoid comes one step more, so that it cannot be left out."""
    outputs, after, task = {
        "of two classes": (1, lambda z: torch.cat([1 - (p := far(z).sigmoid()), p], 1), task_of()),
        "of classes": (3, lambda z: far(z).softmax(1) * 1.0, task_of(3)),
        "of labels": (3, lambda z: far(z).sigmoid() * 1.0, task_of(kind="multilabel")),
        "of one": (1, lambda z: far(z).sigmoid() * 1.0, task_of()),
    }[kind]
    after = Each(after)
    net = Wrapped(outputs, after).eval()
    x = task.example(30)[0]
    assert (net(x) == 0).any()
    network, _, _ = scores_for(as_file(net, way, tmp_path), task)
    assert torch.isfinite(network(x)).all()
    assert np.isfinite(evaluate(network, task)["nll"])
    for suffix in (".onnx", ".pt2"):
        export(network, (x,), path := tmp_path / f"scored{suffix}")
        assert torch.isfinite(load(path)(x * 100)).all()
    got = onnx_session(tmp_path / "scored.onnx").run(None, {"input": x.numpy() * 100})[0]
    assert np.isfinite(got).all()


def test_probabilities_of_half_precision():
    halves = logs(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float16))
    assert halves.tolist() == pytest.approx([np.log(2.0**-14), np.log(0.5), 0.0], abs=1e-2)


class Wide(nn.Module):
    """Scores of so many classes, the largest at the class that the first feature names."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x):
        return 5 * torch.nn.functional.one_hot(x[:, 0].long(), self.width).to(x.dtype) + 0 * x[:, :1]


def _wide_task(classes, at):
    """Targets count the classes that occur; the first feature is the network's own number of the class."""
    y = np.arange(200) % len(at)
    x = RNG.normal(size=(200, 5)).astype(np.float32)
    x[:, 0] = np.array(at)[y]
    return Task.from_arrays(x, y, classes=classes)


def test_more_classes_than_occur_are_found_by_their_numbers():
    task = _wide_task(("3", "17", "998"), (3, 17, 998))
    net, wide, said = scores_for(Wide(1000), task)
    assert said == "the network knows 1000 classes, of which the data have 3, found by their numbers"
    assert wide.outputs == len(wide.classes) == 1000
    assert wide.classes[998] == "998"
    assert evaluate(net, wide)["accuracy"] == 1


def test_more_classes_than_occur_are_found_by_the_names_in_the_file(tmp_path):
    names = tuple(f"kind {c}" for c in range(40))
    whole = Task.from_arrays(RNG.normal(size=(400, 5)).astype(np.float32), np.arange(400) % 40, classes=names)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 40)).eval()
    export(net, whole.example(2), tmp_path / "n.onnx", signature=whole.signature)
    read = load(tmp_path / "n.onnx")
    x = RNG.normal(size=(300, 5)).astype(np.float32)
    best = net(torch.from_numpy(x))[:, [31, 4]].argmax(1)  # of two classes, those that the network prefers
    few = Task.from_arrays(x, best, classes=("kind 31", "kind 4"))
    _, wide, said = scores_for(read, few)
    assert said == "the network knows 40 classes, of which the data have 2, found by their names"
    assert wide.classes == names
    targets = torch.cat([y for _, y in wide.val.batches(64)])
    assert set(targets.tolist()) == {31, 4}
    outputs = torch.cat([net(x) for x, _ in wide.val.batches(64)])
    assert bool((outputs[:, [31, 4]].argmax(1) == (targets == 4)).all())


def test_names_that_the_network_does_not_know_are_taken_to_be_its_first_and_it_says_so():
    task = _wide_task(("cat", "dog"), (0, 1))
    _, wide, said = scores_for(Wide(4), task)
    assert "its first 2 are taken to be the data's" in said
    assert wide.classes == ("cat", "dog", "class 2", "class 3")


@pytest.mark.parametrize(
    "method",
    [TemperatureScaling(), IsotonicCalibration(), VectorScaling(), Distillation(epochs=1, student="mlp")],
)
def test_methods_serve_a_network_that_knows_more_classes_than_occur(method):
    """Also where nobody told the task of them."""
    task = task_of(outputs=3)
    torch.manual_seed(0)
    made = method(nn.Sequential(nn.Linear(5, 50)).eval(), task, Budget(epochs=1))
    outputs = made(task.example(4)[0])
    assert outputs.shape == (4, 50)
    assert bool(outputs.isfinite().all())


def test_labels_of_a_thousand_classes_are_read_where_few_occur(tmp_path):
    labels = np.array([207, 281, 999] * 40)
    np.savez(tmp_path / "d.npz", x=RNG.normal(size=(120, 5)).astype(np.float32), y=labels)
    assert named_task(str(tmp_path / "d.npz")).outputs == 1000
