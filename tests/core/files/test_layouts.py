from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from netwright.core.contracts import Box
from netwright.core.errors import NotApplicable
from netwright.core.files.export import export
from netwright.core.files.facts import input_shapes
from netwright.core.files.layouts import channels_first, laid_out
from netwright.core.files.load import load
from netwright.core.files.match import check_match
from netwright.core.fit import Fit
from netwright.core.split import Normalise
from netwright.core.task import Task
from netwright.data.augment import flip_and_crop
from netwright.explain.grad_cam import GradCam
from netwright.verify.pgd import PGD

RNG = np.random.default_rng(0)


def nhwc_file(path):
    """As tf2onnx writes them: NHWC outside, a convolution of NCHW inside."""
    weight = numpy_helper.from_array(RNG.normal(size=(4, 3, 3, 3)).astype(np.float32), "w")
    head = numpy_helper.from_array(RNG.normal(size=(4, 2)).astype(np.float32), "head")
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 9, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])], [weight, head],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


class LastNet(nn.Module):
    """Takes (B, H, W, C)."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.conv(x.permute(0, 3, 1, 2)).mean((2, 3)))


def pictures(last=False, scaled=False):
    x = RNG.integers(0, 256, (60, 3, 8, 9)).astype(np.uint8)
    norm = None if scaled else Normalise([0.5, 0.4, 0.3], [0.2, 0.3, 0.4], 1 / 255)
    x = x.astype(np.float32) / 255 if scaled else x
    return Task.from_arrays(x.transpose(0, 2, 3, 1) if last else x, np.arange(60) % 2, normalise=norm)


def test_an_nhwc_file_takes_the_task_s_pictures_and_stays_an_nhwc_file(tmp_path):
    path = nhwc_file(tmp_path / "n.onnx")
    task = pictures()
    network, fed, said = laid_out(load(path), task)
    assert "NHWC" in said
    assert input_shapes(network) == ((3, 8, 9),)
    check_match(network, fed)
    assert not any("permute" in str(n.target) for n in network.graph.nodes)  # both have fallen away
    x = fed.example(5)[0]
    expected = onnxruntime.InferenceSession(path).run(
        None, {"x": x.permute(0, 2, 3, 1).contiguous().numpy()}
    )[0]
    torch.testing.assert_close(network(x), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    raw = fed.raw().example(5)
    assert raw[0].shape == (5, 8, 9, 3)
    export(network, raw, tmp_path / "out.onnx", fed.front)
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx")
    assert session.get_inputs()[0].shape[1:] == [8, 9, 3]
    got = session.run(None, {session.get_inputs()[0].name: raw[0].numpy()})[0]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("wants_last", [False, True])
def test_modules_and_data_of_either_layout(last, wants_last):
    torch.manual_seed(0)
    inner = LastNet()
    net = inner if wants_last else channels_first(inner)
    task = pictures(last, scaled=True)
    network, fed, said = laid_out(net, task)
    assert fed.input_shape == (3, 8, 9)
    assert fed.meaning == "image"
    assert bool(said) == (last or wants_last)
    stored = torch.from_numpy(np.asarray(task.val.inputs[0][:4]))
    expected = inner(stored if last else stored.permute(0, 2, 3, 1))
    torch.testing.assert_close(network(fed.example(4)[0]), expected)
    raw = fed.raw().example(4)[0]
    assert raw.shape[-1 if wants_last else 1] == 3
    front = fed.front or nn.Identity()
    torch.testing.assert_close(front(raw), fed.example(4)[0])


def both_ways():
    """A network of NHWC pictures that takes NCHW ones, and the same network written for NCHW."""
    torch.manual_seed(0)
    last = LastNet().eval()

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.conv(x).mean((2, 3)))

    first = First().eval()
    first.load_state_dict(last.state_dict())
    return laid_out(last, pictures(scaled=True)), first


def test_grad_cam_of_a_network_that_was_turned():
    (network, task, _), first = both_ways()
    x = task.example(6)[0]
    torch.testing.assert_close(GradCam()(network, x).attribution, GradCam()(first, x).attribution)


def test_channels_last_are_no_maps():
    """Layers along the last dimension, and the ReLU behind them, give (B, h, w, K)."""
    torch.manual_seed(0)
    tail = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    with pytest.raises(NotApplicable, match="maps"):
        GradCam()(channels_first(tail), torch.rand(2, 3, 8, 9))


def test_pgd_against_a_network_that_was_turned():
    (network, task, _), first = both_ways()
    x = task.example(6)[0]
    box = Box(x - 0.02, x + 0.02, first(x).argmax(1))
    for found, expected in zip(
        PGD(steps=5).attack(network, box), PGD(steps=5).attack(first, box), strict=True
    ):
        torch.testing.assert_close(found, expected)
    assert PGD(steps=5).attack(network, box)[0].shape == x.shape


def test_augmentation_moves_pictures_and_not_their_channels():
    (network, task, _), first = both_ways()
    task = replace(task, augment=partial(flip_and_crop, border=2))
    for net in (network, first):
        Fit(epochs=2, lr=1e-2, seed=0)(net, replace(task, axes=()) if net is first else task)
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(network.state_dict()[f"network.{name}"], tensor, rtol=1e-3, atol=1e-5)
