"""GRUs that reset the state before its weight (linear_before_reset 0), against ONNX Runtime, and on from there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tests.core.files.onnx_import.small import N, assert_equal, build, weights
from torch import nn

from netwright.core.errors import UnsupportedOperator
from netwright.core.files.export import export
from netwright.core.files.load import load
from netwright.core.files.onnx_import import read_onnx
from netwright.core.files.onnx_import.cells import ResetFirstGRU
from netwright.core.graph import trace
from netwright.core.graph.groups import dependencies
from netwright.core.graph.prune import mask, prune

HIDDEN = 5


def gru(path: Path, direction: str = "forward", bias: bool = True, state: bool = False) -> Path:
    """x (7, B, 3) -> all states and the last ones."""
    ways = 2 if direction == "bidirectional" else 1
    held = {"w": weights(ways, 3 * HIDDEN, 3), "r": weights(ways, 3 * HIDDEN, HIDDEN)}
    held |= {"b": weights(ways, 6 * HIDDEN)} if bias else {}
    inputs = {"x": [7, "batch", 3]} | ({"h": [ways, "batch", HIDDEN]} if state else {})
    names = ["x", "w", "r", "b" if bias else "", "", "h" if state else ""]
    node = N("GRU", names, ["y", "last"], hidden_size=HIDDEN, direction=direction)
    return build(path, [node], inputs, held, 14, ("y", "last"))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("bias", "state"), [(True, False), (False, True), (True, True)])
def test_equals_onnx_runtime(direction: str, bias: bool, state: bool, tmp_path: Path) -> None:
    path = gru(tmp_path / "m.onnx", direction, bias, state)
    network = read_onnx(path)
    ways = 2 if direction == "bidirectional" else 1
    for rows in (1, 4):
        given = (torch.randn(7, rows, 3), *([torch.randn(ways, rows, HIDDEN)] if state else []))
        assert_equal(path, network, *given, tolerance=1e-5)


def test_by_hand_in_float64() -> None:
    """Eq. 5 to 8 of arXiv 1406.1078 (with its z for 1 - z, as ONNX has it), one number after another."""
    torch.manual_seed(0)
    layer = ResetFirstGRU(3, 4).double()
    x, h = torch.randn(6, 2, 3, dtype=torch.float64), np.zeros((2, 4))
    w, u, b, c = (p.detach().numpy() for p in layer.parameters())
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    for at in x.numpy():
        r, z = (
            sigmoid(at @ w[k].T + b[k] + h @ u[k].T + c[k]) for k in (slice(0, 4), slice(4, 8))
        )  # fmt: skip
        n = np.tanh(at @ w[8:].T + b[8:] + (r * h) @ u[8:].T + c[8:])
        h = (1 - z) * n + z * h
    np.testing.assert_allclose(layer(x)[1][0].detach().numpy(), h, rtol=1e-12)


def test_is_written_again_as_both_files(tmp_path: Path) -> None:
    network = read_onnx(gru(tmp_path / "m.onnx", "bidirectional"))
    classifier = nn.Sequential(Last(network), nn.Linear(2 * HIDDEN, 3)).eval()
    x = torch.randn(4, 7, 3)
    for suffix in (".onnx", ".pt2"):
        assert export(classifier, (x,), tmp_path / f"again{suffix}").dynamic_batch
    expected = classifier(torch.cat([x, x]))
    session = ort.InferenceSession(str(tmp_path / "again.onnx"))
    (got,) = session.run(None, {"input": torch.cat([x, x]).numpy()})
    torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(load(tmp_path / "again.pt2")(torch.cat([x, x])), expected)


class Last(nn.Module):
    """(B, T, I) -> the last states of both directions (B, 2 H)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, last = self.network(x.transpose(0, 1))
        return last.transpose(0, 1).flatten(1)


def test_units_that_are_removed_are_those_that_were_masked(tmp_path: Path) -> None:
    """Whatever the analysis finds in the unrolled steps: keeping all changes nothing, cutting equals masking."""
    torch.manual_seed(0)
    net = nn.Sequential(Last(ResetFirstGRU(3, HIDDEN)), nn.Linear(HIDDEN, 6), nn.ReLU(), nn.Linear(6, 3))
    net = net.double().eval()
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    found = dependencies(trace(net, x))
    assert found.groups
    torch.testing.assert_close(prune(net, x, {g.name: range(g.size) for g in found.groups})(x), net(x))
    for group in found.groups:
        keep = {group.name: list(range(0, group.size, 2))}
        torch.testing.assert_close(prune(net, x, keep)(x), mask(net, keep, found)(x))


def test_sequences_of_different_lengths_are_refused(tmp_path: Path) -> None:
    held = {
        "w": weights(1, 3 * HIDDEN, 3),
        "r": weights(1, 3 * HIDDEN, HIDDEN),
        "n": np.array([3, 7], np.int32),
    }
    node = N("GRU", ["x", "w", "r", "", "n"], ["y"], hidden_size=HIDDEN)
    path = build(tmp_path / "m.onnx", [node], {"x": [7, 2, 3]}, held, 14)
    with pytest.raises(UnsupportedOperator, match="different lengths"):
        read_onnx(path)
