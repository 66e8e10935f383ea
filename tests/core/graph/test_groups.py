"""What is in a group, what is in none and why."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.graph import dependencies, groups, mask, prune, trace


def parts(group: object) -> dict[tuple[str, int], tuple[int, ...]]:
    return {(s.parameter, s.axis): tuple(s.index.shape) for s in group.slices}


def test_a_group_holds_every_slice_of_its_units() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    )
    (group,) = groups(trace(network, torch.randn(2, 3, 8, 8)))
    assert group.name == "0"
    assert parts(group) == {
        ("0.weight", 0): (4, 1), ("0.bias", 0): (4, 1), ("1.weight", 0): (4, 1), ("1.bias", 0): (4, 1),
        ("1.running_mean", 0): (4, 1), ("1.running_var", 0): (4, 1), ("5.weight", 1): (4, 9),
    }  # fmt: skip
    flat = next(s for s in group.slices if s.parameter == "5.weight")
    assert flat.index.tolist() == [list(range(9 * c, 9 * c + 9)) for c in range(4)]


def test_gates_of_a_recurrent_layer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(5, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0])

    (group,) = groups(trace(Net(), torch.randn(2, 4, 5)))
    index = {(s.parameter, s.axis): s.index.tolist() for s in group.slices}
    assert index["rnn.weight_hh_l0", 0] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert index["rnn.weight_hh_l0", 1] == index["head.weight", 1] == [[0], [1], [2]]


def test_an_unknown_operator_blocks_what_it_touches_and_nothing_else() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.sort(self.a(x), dim=1).values
            return self.head(F.relu(self.b(y)))

    network, x = Net(), torch.randn(2, 5)
    found = dependencies(trace(network, x))
    assert [g.name for g in found.groups] == ["b"]
    assert "sort" in found.blocked["a.weight"]
    assert prune(network, x, {"b": [1, 2]}, found).b.out_features == 2


def test_units_that_are_normalised_against_each_other_stay() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.softmax(self.a(x), 1) + self.b(x) / self.b(x).mean(1, keepdim=True))

    found = dependencies(trace(Net(), torch.randn(2, 5)))
    assert found.groups == []
    assert "softmax" in found.blocked["a.weight"] or "mean" in found.blocked["a.weight"]


def test_what_meets_the_input_stays() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(5, 5), nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(F.relu(self.a(x)) + x))

    assert [g.name for g in groups(trace(Net(), torch.randn(2, 5)))] == ["b"]


def test_a_map_of_one_channel_ties_nothing_together() -> None:
    class Net(nn.Module):
        """Spatial attention: one channel gates all others."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.head((y * torch.sigmoid(self.gate(y))).mean((2, 3)))

    network, x = Net().eval(), torch.randn(2, 3, 6, 6)
    found = dependencies(trace(network, x))
    assert [(g.name, g.size) for g in found.groups] == [("a", 8)]
    small = prune(network, x, {"a": [0, 4, 5]}, found)
    torch.testing.assert_close(small(x), mask(network, {"a": [0, 4, 5]}, found)(x))


def test_a_part_of_one_unit_is_never_taken_away_whole() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.one, self.rest = nn.Linear(5, 6), nn.Linear(1, 3), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.a(x))
            return self.one(y[:, :1]) + self.rest(y[:, 1:]) + y[:, 3].unsqueeze(1)

    network, x = Net().eval(), torch.randn(2, 5)
    found = dependencies(trace(network, x))
    (group,) = found.groups
    assert group.slices[0].index.flatten().tolist() == [1, 2, 4, 5]
    small = prune(network, x, {group.name: [3]}, found)
    torch.testing.assert_close(small(x), mask(network, {group.name: [3]}, found)(x))


def test_an_einsum_and_a_computed_weight() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.randn(5, 8))
            self.b, self.head = nn.Linear(8, 6), nn.Linear(6, 3)
            self.free = nn.Parameter(torch.randn(3, 6))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.einsum("btf,fc->btc", x, self.a)
            y = F.relu(self.b(F.relu(y)))
            return self.head(y) + F.linear(
                y, torch.tanh(self.free)
            )  # a weight that is computed: b keeps its size

    network, x = Net().eval(), torch.randn(2, 4, 5)
    found = dependencies(trace(network, x))
    assert [(g.name, g.size) for g in found.groups] == [("a", 8)]
    assert "linear_2" in found.blocked["b.weight"]
    small = prune(network, x, {"a": [1, 6]}, found)
    torch.testing.assert_close(small(x), mask(network, {"a": [1, 6]}, found)(x))


def test_a_rule_that_fails_makes_its_operator_unknown(monkeypatch) -> None:
    from netwright.core.graph.labels import layers

    def broken(*_: object) -> None:
        raise IndexError("no such dimension")

    monkeypatch.setitem(layers.LAYERS, "batch_norm", broken)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    found = dependencies(trace(network, torch.randn(3, 4)))
    assert [g.name for g in found.groups] == ["2"]
    assert "no such dimension" in found.blocked["0.weight"]
