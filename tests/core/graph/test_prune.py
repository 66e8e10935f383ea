"""Pruned networks compute what the originals compute with the other units zeroed."""

from __future__ import annotations

from typing import Any

import awkward
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from netwright.core.errors import BadInput, UnknownName
from netwright.core.fit import Fit
from netwright.core.graph import dependencies, groups, mask, prune, reorder, trace
from netwright.core.network import parameter_count
from netwright.core.task import Task


def outputs(network: nn.Module, example: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        return pytree.tree_leaves(network.eval()(*example))


def half(found: Any) -> dict[str, Tensor]:
    return {g.name: torch.randperm(g.size)[: (g.size + 1) // 2].sort().values for g in found.groups}


def wider(example: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Other inputs, another batch size."""
    return tuple(
        torch.randint(0, 11, (5, *t.shape[1:])) if t.dtype == torch.int64 else torch.randn(5, *t.shape[1:])
        for t in example
    )


@pytest.mark.parametrize("name", awkward.EXACT)
def test_removing_units_equals_zeroing_them(name: str) -> None:
    network, example = awkward.make(name)
    found = dependencies(trace(network, example))
    assert found.groups
    assert all(group.exact for group in found.groups)
    for keep in [half(found), *({g.name: [0]} for g in found.groups)]:
        small = prune(network, example, keep, found)
        masked = mask(network, keep, found)
        assert parameter_count(small) < parameter_count(network)
        inputs = wider(example)
        for got, expected in zip(outputs(small, inputs), outputs(masked, inputs), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", awkward.EXACT)
def test_nothing_removed_or_only_moved_changes_nothing(name: str) -> None:
    network, example = awkward.make(name)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    found = dependencies(trace(network, example))
    same = prune(network, example, {}, found)
    moved = reorder(network, example, {g.name: torch.randperm(g.size) for g in found.groups}, found)
    inputs = wider(example)
    for got, again, expected in zip(
        outputs(same, inputs), outputs(moved, inputs), outputs(network, inputs), strict=True
    ):
        assert torch.equal(got, expected)
        torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-5)
    assert any(not torch.equal(v, before[k]) for k, v in moved.state_dict().items())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_pruned_network_is_in_the_mode_of_the_one_that_was_given() -> None:
    """Its new modules, too: dropout and batch norm that the forward had called as functions."""
    network, example = awkward.make("baked")
    found = dependencies(trace(network, example))
    for training in (False, True):
        small = prune(network.train(training), example, half(found), found)
        assert {module.training for module in small.modules()} == {training}


@pytest.mark.parametrize("name", ["residual", "separable", "lstm-both", "attention", "baked"])
def test_a_pruned_network_learns(name: str) -> None:
    network, example = awkward.make(name)
    small = prune(network, example, half(dependencies(trace(network, example))))
    assert {k for k, _ in small.named_parameters()} == {k for k, _ in network.named_parameters()}
    before = {k: v.clone() for k, v in small.named_parameters()}
    small.train()
    loss = small(*wider(example)).square().mean()
    loss.backward()
    torch.optim.SGD(small.parameters(), lr=0.1).step()
    changed = {k for k, v in small.named_parameters() if not torch.equal(v, before[k])}
    assert "head.weight" in changed
    assert len(changed) >= len(before) - 1  # a row of a table may not occur in the batch


def test_batch_norm_and_dropout_of_a_lifted_network_follow_its_mode() -> None:
    network, example = awkward.make("baked")
    found = dependencies(trace(network, example))
    small = prune(network, example, half(found), found)
    assert isinstance(small, fx.GraphModule)
    x = torch.randn(16, 3, 8, 8)
    assert torch.equal(small.eval()(x), small(x))
    mean = small.mean.clone()
    assert torch.equal(small.mean, mean)
    small.train()
    assert not torch.equal(small(x), small(x))  # dropout draws anew
    assert not torch.equal(small.mean, mean)  # running statistics move
    # the statistics that it moves towards are those of the channels that are left
    kept = F.conv2d(x, small.kernel, padding=1).mean((0, 2, 3))
    small.mean.zero_()
    small(x)
    torch.testing.assert_close(small.mean, 0.1 * kept)


def test_the_users_own_class_stays_where_its_code_permits() -> None:
    network, example = awkward.make("separable")
    found = dependencies(trace(network, example))
    small = prune(network, example, half(found), found)
    assert type(small) is awkward.Separable
    assert small.stem.out_channels == small.depthwise.groups == small.norm.num_features == 4
    assert (small.twofold.in_channels, small.twofold.out_channels, small.twofold.groups) == (4, 8, 4)
    assert (small.grouped.groups, small.grouped.in_channels) == (4, 8)
    lstm, words = awkward.make("lstm-both")
    small = prune(lstm, words, {"rnn": [0, 2, 5]})
    assert (small.rnn.hidden_size, small.head.in_features) == (3, 6)


def test_shared_tensors_stay_shared() -> None:
    network, example = awkward.make("shared")
    small = prune(network, example, half(dependencies(trace(network, example))))
    assert small.first.weight is small.second.weight


class PreNorm(nn.Module):
    """x + W2 gelu(W1 norm(x)), then norm and head: units of the stream pass two layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(5, 16), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 20), nn.Linear(20, 16)
        self.last, self.head = nn.LayerNorm(16), nn.Linear(16, 3)
        for norm in (self.norm, self.last):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.head(self.last(x))


def test_a_layer_norm_runs_over_the_units_that_are_left() -> None:
    network, x = PreNorm().eval(), torch.randn(4, 7, 5)
    found = dependencies(trace(network, x))
    assert {g.name: g.exact for g in found.groups} == {"embed": False, "up": True}
    kept = torch.tensor([0, 1, 2, 3, 5, 8, 13])
    small = prune(network, x, {"embed": kept}, found)
    assert small.norm.normalized_shape == (7,)

    def norm(layer: nn.LayerNorm, value: Tensor) -> Tensor:
        """By hand, over the kept columns of a tensor of full width."""
        part = value[..., kept]
        part = (part - part.mean(-1, keepdim=True)) / (part.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        full = torch.zeros_like(value)
        full[..., kept] = part * layer.weight[kept] + layer.bias[kept]
        return full

    with torch.no_grad():
        y = network.embed(x)
        y = y + network.down(F.gelu(network.up(norm(network.norm, y))))
        expected = network.head(norm(network.last, y))
        torch.testing.assert_close(small(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [False, True])
def test_heads_of_an_encoder_layer(first: bool) -> None:
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=first)
    network, x = nn.Sequential(layer, nn.Linear(16, 3)).eval(), torch.randn(3, 6, 16)
    nn.init.normal_(layer.self_attn.in_proj_bias)
    found = dependencies(trace(network, x))
    sizes = {g.name: (g.size, g.exact) for g in found.groups}
    assert sizes == {
        "0.self_attn": (4, True),
        "0.linear1": (32, True),
    }  # the stream is the input: not prunable
    keep = {"0.self_attn": [1, 3], "0.linear1": range(5, 20)}
    small, masked = prune(network, x, keep, found), mask(network, keep, found)
    x = torch.randn(5, 6, 16)
    torch.testing.assert_close(outputs(small, (x,))[0], outputs(masked, (x,))[0], atol=1e-5, rtol=1e-5)
    assert small.get_parameter("0.self_attn.in_proj_weight").shape == (24, 16)
    assert small.get_parameter("0.self_attn.out_proj.weight").shape == (16, 8)


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(4, 8), nn.GroupNorm(8, 8), nn.GroupNorm(1, 8), nn.InstanceNorm2d(8, affine=True)]
)
def test_group_norm_keeps_its_groups_equal(norm: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3)).eval()
    x = torch.randn(2, 3, 8, 8)
    found = dependencies(trace(network, x))
    (group,) = found.groups
    single = isinstance(norm, nn.InstanceNorm2d) or norm.num_groups == 8
    assert group.exact == single
    assert group.size == (2 if getattr(norm, "num_groups", 8) == 4 else 8)
    keep = {group.name: [1]} if group.size == 2 else {group.name: [0, 3, 6]}
    small = prune(network, x, keep, found)
    index = group.slices[0].index[keep[group.name]].flatten().sort().values
    # the same layers by hand, at the kept channels
    y = network[0](x)[:, index]
    if single:
        y = F.group_norm(y, len(index), norm.weight[index], norm.bias[index])
    else:
        y = F.group_norm(y, norm.num_groups, norm.weight[index], norm.bias[index])
    columns = network[4].weight.view(3, 8, 36)[:, index].flatten(1)
    expected = F.relu(y).flatten(1) @ columns.t() + network[4].bias
    torch.testing.assert_close(small(x), expected, atol=1e-5, rtol=1e-5)


def test_a_lifted_network_can_be_traced_and_pruned_again() -> None:
    network, example = awkward.make("attention")
    small = prune(network, example, {"qkv": [0, 2]})
    again = prune(small, example, {"qkv": [1], "up": range(10)})
    assert again.get_parameter("qkv.weight").shape == (12, 16)
    masked = mask(network, {"qkv": [2], "up": range(10)}, dependencies(trace(network, example)))
    torch.testing.assert_close(outputs(again, example)[0], outputs(masked, example)[0], atol=1e-5, rtol=1e-5)


def test_a_pruned_network_is_fine_tuned_by_fit() -> None:
    network, example = awkward.make("baked")
    small = prune(network, example, half(dependencies(trace(network, example))))
    y = torch.arange(120) % 3
    x = torch.randn(3, 3, 8, 8)[y] + 0.3 * torch.randn(120, 3, 8, 8)
    history = Fit(epochs=8, batch_size=20, lr=1e-2)(small, Task.from_arrays(x, y))
    assert history.rows[-1]["loss"] < 0.6 * history.rows[0]["loss"]


def test_wrong_keeps_are_refused() -> None:
    network, example = awkward.make("residual")
    with pytest.raises(UnknownName, match="stem"):
        prune(network, example, {"sten": [0]})
    for wrong in ([], [0, 0], [8], [-1]):
        with pytest.raises(BadInput, match="stem"):
            prune(network, example, {"stem": wrong})
    with pytest.raises(BadInput, match="each of its 8"):
        reorder(network, example, {"stem": [0, 1]})


def test_outputs_and_inputs_are_in_no_group() -> None:
    for name in awkward.EXACT:
        network, example = awkward.make(name)
        parts = {(s.parameter, s.axis) for g in groups(trace(network, example)) for s in g.slices}
        assert ("head.weight", 0) not in parts
        assert ("values.weight", 0) not in parts
        assert ("aside.weight", 0) not in parts
        assert ("stem.weight", 1) not in parts
        assert ("head.weight", 1) in parts or name == "two-in-two-out"
