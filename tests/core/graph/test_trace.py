"""The traced graph computes what the network computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import NotApplicable
from netwright.core.graph import trace


class Mixed(nn.Module):
    """Attention, a recurrent layer, shared weights, a constant that is no buffer, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.drop = nn.LayerNorm(8), nn.Dropout(0.5)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.scale = torch.full((8,), 0.5)
        self.recurrent = nn.LSTM(8, 4, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> dict[str, Tensor | None]:
        y = self.drop(self.norm(x + self.attention(x, x, x)[0]))
        y = self.second(F.relu_(self.first(y))) * self.scale
        return {"last": self.recurrent(y)[0][:, -1], "all": y, "none": None}


@pytest.mark.parametrize("level", ["structure", "core"])
def test_running_the_nodes_gives_the_outputs_at_any_batch(level: str) -> None:
    network = Mixed()
    graph = trace(network, torch.randn(1, 3, 8), level)
    assert network.training  # the network's mode is left as it was
    network.eval()
    assert graph.dynamic
    assert graph.batch == 1
    for batch in (1, 4):
        x = torch.randn(batch, 3, 8)
        with torch.no_grad():
            expected = network(x)
            got = graph.run((x,), lambda node, args, kwargs: node.target(*args, **kwargs))
        torch.testing.assert_close(got[0], expected["last"])
        torch.testing.assert_close(got[1], expected["all"])


def test_structure_keeps_layers_whole_and_core_takes_them_apart() -> None:
    network, x = Mixed(), torch.randn(2, 3, 8)
    whole = {node.op for node in trace(network, x).nodes}
    assert {
        "aten.layer_norm.default",
        "aten.lstm.input",
        "aten.linear.default",
        "aten.relu_.default",
    } <= whole
    apart = {node.op for node in trace(network, x, "core").nodes}
    assert not {"aten.lstm.input", "aten.linear.default", "aten.relu_.default"} & apart


def test_a_shared_tensor_stands_once_under_its_first_name() -> None:
    network = Mixed()
    graph = trace(network, torch.randn(2, 3, 8))
    assert graph.aliases == {"second.weight": "first.weight"}
    assert "second.weight" not in graph.parameters
    assert graph.parameters["first.weight"] is network.first.weight
    readers = [n for n in graph.nodes for source in n.inputs if source.parameter == "first.weight"]
    assert len(readers) == 2
    assert {n.module for n in readers} == {"first", "second"}


def test_a_network_that_fixes_its_batch_is_traced_at_that_batch() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).view(3, 6)

    graph = trace(Fixed(), torch.randn(3, 4))
    assert not graph.dynamic
    assert graph.batch == 3
    assert graph.outputs[0].shape == (3, 6)


def test_what_cannot_be_traced_is_refused_in_one_line() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(NotApplicable) as caught:
        trace(Branching(), torch.randn(2, 3))
    assert "\n" not in str(caught.value)


def test_several_inputs_as_a_variadic_argument() -> None:
    class Sum(nn.Module):
        def forward(self, *xs: Tensor) -> Tensor:
            return xs[0] + xs[1]

    graph = trace(Sum(), (torch.randn(2, 3), torch.randn(2, 3)))
    assert graph.dynamic
    assert len(graph.inputs) == 2


def test_what_torch_cannot_take_apart_is_not_applicable(monkeypatch) -> None:
    network, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval(), torch.randn(2, 3)

    def fail(self, table):
        raise AttributeError("has no '_guards_fn'\nand more")

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", fail)
    with pytest.raises(NotApplicable, match=r"plain operators: has no '_guards_fn'$"):
        trace(network, x, "core")
