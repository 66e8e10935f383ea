import numpy as np
import pytest
import torch
from torch import nn

from netwright.core.errors import BadInput
from netwright.core.files.load import load
from netwright.core.files.single import single


class Cast(nn.Module):
    """A network that computes in a precision of its own."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
        self.dtype = dtype

    def forward(self, x):
        return self.body(x.to(self.dtype)) * torch.ones(1, dtype=self.dtype)


@pytest.mark.parametrize("way", ["module", "onnx", "pt2"])
def test_double_precision(way, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    x = torch.randn(6, 4)
    made = net
    if way == "onnx":
        torch.onnx.export(
            net,
            (x.double(),),
            tmp_path / "n.onnx",
            dynamo=False,
            dynamic_axes={"x": {0: "b"}},
            input_names=["x"],
        )
        made = load(tmp_path / "n.onnx")
    elif way == "pt2":
        batch = {0: torch.export.Dim("batch")}
        torch.export.save(
            torch.export.export(net, (x.double(),), dynamic_shapes=(batch,)), tmp_path / "n.pt2"
        )
        made = load(tmp_path / "n.pt2")
    network, said = single(made, (x,))
    assert "float64" in said
    assert network(x).dtype == torch.float32
    np.testing.assert_allclose(network(x).detach(), net(x.double()).detach(), rtol=1e-4, atol=1e-5)
    assert next(net.parameters()).dtype == torch.float64  # the given one stays


def test_what_is_in_single_precision_stays():
    net = nn.Linear(4, 2)
    assert single(net, (torch.zeros(2, 4),)) == (net, "")


def test_a_network_that_insists_is_refused():
    with pytest.raises(BadInput, match="float64, and does not run in float32"):
        single(Cast(torch.float64), (torch.zeros(2, 4),))
