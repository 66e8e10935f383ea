"""A network at a prefix of itself, against the same network pruned for real."""

from __future__ import annotations

import awkward
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from netwright.core.errors import BadInput, NotApplicable, UnknownName
from netwright.core.graph import dependencies, prune, trace
from netwright.core.graph.elastic import Elastic, Prefix
from netwright.core.graph.stacks import Skip, without
from netwright.core.graph.view import view
from netwright.core.network import parameter_count
from netwright.models import build

SHAPE = (1, 8, 8)


def outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return pytree.tree_leaves(network(*inputs))


def resnet(depth: int = 14, width: int = 8) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    network = build("resnet", SHAPE, 3, depth=depth, width=width).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network, (torch.randn(4, *SHAPE),)


class Encoder(nn.Module):
    """PyTorch's own encoder: packed projections, blocks that are called with masks."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 4, 12, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Tied(nn.Module):
    """One weight under two names, in a shape that both use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(torch.relu(self.a(torch.relu(self.stem(x)))))))


def made(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    if name == "resnet14":
        return resnet()
    if name == "encoder":
        return Encoder().eval(), (torch.randn(4, 5, 8),)
    if name == "tied":
        return Tied().eval(), (torch.randn(4, 5),)
    network, example = awkward.make(name)
    return network.eval(), example


@pytest.mark.parametrize(
    "name", ["resnet14", "separable", "concat-split", "encoder", "attention", "baked", "lstm", "tied"]
)
def test_a_prefix_equals_the_network_pruned_for_real_and_so_do_its_gradients(name: str) -> None:
    """And none of the weights is copied: what the parameters become is seen at once."""
    network, example = made(name)
    elastic = Elastic(network, example)
    size = elastic.share(0.5)
    small = elastic.at(size)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1).add_(0.01)
    keep = {group.name: range(max(1, round(0.5 * group.size))) for group in elastic.groups}
    real = prune(network, example, keep)
    assert parameter_count(small) == parameter_count(real) < parameter_count(network)
    expected, got = outputs(real, example), outputs(small, example)
    for a, b, c in zip(got, expected, outputs(elastic.extract(size), example), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(c, b, atol=1e-5, rtol=1e-5)
    for results in (got, expected):
        sum(result.square().sum() for result in results).backward()
    whole, part = dict(network.named_parameters()), dict(real.named_parameters())
    assert part.keys() <= whole.keys()
    for key, parameter in part.items():
        gradient = whole[key].grad
        assert gradient is not None
        # nothing flows to what is left out, and what is kept gets all of it
        assert int((gradient != 0).sum()) <= parameter.numel()
        torch.testing.assert_close(gradient.sum(), parameter.grad.sum(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            gradient.square().sum(), parameter.grad.square().sum(), atol=1e-4, rtol=1e-4
        )


def test_blocks_are_left_out_from_the_end_and_units_stay_those_of_the_whole_network() -> None:
    network, example = resnet(20)
    elastic = Elastic(network, example)
    assert [stack.blocks for stack in elastic.stacks] == [
        tuple(f"stage{stage}.{i}" for i in range(3)) for stage in (1, 2, 3)
    ]
    assert elastic.depths == {"stage1.0": 3, "stage2.0": 3, "stage3.0": 3}
    size = elastic.prefix({"conv": 5}, {"stage1.0": 1, "stage2.0": 2})
    by_hand = prune(network, example, {"conv": range(5)})
    for name in ("stage1.1", "stage1.2", "stage2.2"):
        by_hand.set_submodule(name, nn.Identity())
    expected = outputs(by_hand, example)[0]
    plain = elastic.extract(size)
    for small in (elastic.at(size), plain):
        torch.testing.assert_close(outputs(small, example)[0], expected, atol=1e-5, rtol=1e-5)
    assert isinstance(plain.get_submodule("stage1.2"), Skip)
    assert parameter_count(plain) == parameter_count(by_hand)
    assert len(outputs(plain, (torch.randn(7, *SHAPE),))[0]) == 7


def test_an_encoder_of_pytorch_is_shortened_although_its_blocks_are_given_masks() -> None:
    network, example = made("encoder")
    elastic = Elastic(network, example)
    assert [stack.blocks for stack in elastic.stacks] == [tuple(f"encoder.layers.{i}" for i in range(3))]
    expected = network.encoder.layers[0](example[0])
    expected = network.head(expected.mean(1))
    torch.testing.assert_close(elastic.at(elastic.share(1.0, 0.1))(*example), expected, atol=1e-5, rtol=1e-5)


class Odd(nn.Module):
    """Lists that are no stacks: changed between blocks, another class, a block that runs twice, one that the code asks
    for by its number, leaves, blocks without weights."""

    def __init__(self) -> None:
        super().__init__()
        block = lambda: Block(6)
        self.between, self.mixed = (
            nn.ModuleList(block() for _ in range(2)),
            nn.ModuleList([block(), Other(6)]),
        )
        self.again = nn.ModuleList(block() for _ in range(2))
        self.asked = nn.ModuleList(block() for _ in range(2))
        self.leaves = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        self.bare = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU()))
        self.unlike = nn.Sequential(nn.Sequential(nn.Linear(6, 6)), nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
        self.grows = nn.Sequential(Block(6), Block(6, 7))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.between:
            x = x + block(x)
        for block in self.mixed:
            x = block(x)
        x = self.again[1](self.again[1](self.again[0](x)))
        x = self.asked[1](self.asked[0](x)) * self.asked[1].scale
        return self.grows(self.unlike(self.bare(self.leaves(x))))


class Block(nn.Module):
    def __init__(self, size: int, out: int | None = None) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(size, out or size), 2.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))


class Other(Block):
    pass


def test_only_what_can_be_left_out_is_a_stack() -> None:
    torch.manual_seed(0)
    assert Elastic(Odd(), torch.randn(3, 6)).stacks == []
    plain = nn.Sequential(Block(6), Block(6), Block(6), nn.Linear(6, 2))
    assert [stack.blocks for stack in Elastic(plain, torch.randn(3, 6)).stacks] == [("0", "1", "2")]


def test_without_shares_the_tensors_and_leaves_the_network_alone() -> None:
    network, example = resnet()
    before = outputs(network, example)[0]
    shorter = without(network, ["stage1.1"])
    assert all(p is dict(network.named_parameters())[name] for name, p in shorter.named_parameters())
    assert not torch.equal(outputs(shorter, example)[0], before)
    assert torch.equal(outputs(network, example)[0], before)


def test_each_size_learns_batch_statistics_of_its_own() -> None:
    network, example = resnet()
    elastic = Elastic(network, example)
    first, second = elastic.share(0.5), elastic.share(0.75)
    held = {k: v.clone() for k, v in network.state_dict().items()}
    small = elastic.at(first)
    torch.testing.assert_close(small.shell.norm.running_mean, network.norm.running_mean[:4])
    network.train()
    assert elastic.at(first) is small
    assert small.training
    before = elastic.at(second).shell.norm.running_mean.clone()
    small(*example)
    raw = nn.functional.conv2d(example[0], network.conv.weight[:4], padding=1)
    expected = 0.9 * held["norm.running_mean"][:4] + 0.1 * raw.mean((0, 2, 3))
    torch.testing.assert_close(small.shell.norm.running_mean, expected)
    torch.testing.assert_close(elastic.extract(first).norm.running_mean, expected)
    torch.testing.assert_close(elastic.at(second).shell.norm.running_mean, before)
    assert all(torch.equal(v, held[k]) for k, v in network.state_dict().items())
    network.eval()
    assert not elastic.at(first).training


def test_what_is_taken_out_is_independent_and_trainable() -> None:
    network, example = made("tied")
    network.head.bias.requires_grad_(False)
    elastic = Elastic(network, example)
    plain = elastic.extract(elastic.share(0.5))
    assert plain.a.weight is plain.b.weight
    assert [n for n, p in plain.named_parameters() if not p.requires_grad] == ["head.bias"]
    assert not plain.training
    before = outputs(plain, example)[0]
    with torch.no_grad():
        network.a.weight.zero_()
    assert torch.equal(outputs(plain, example)[0], before)


def test_a_view_holds_no_weights() -> None:
    network, example = resnet()
    elastic = Elastic(network, example)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    for size in (Prefix(), elastic.share(0.5)):
        small = elastic.at(size)
        assert all(p.untyped_storage().nbytes() <= 4 for p in small.parameters())
        assert all(t.untyped_storage().data_ptr() in own for t in small.tensors().values())
    assert parameter_count(elastic.at(Prefix())) == parameter_count(network)


def test_any_units_can_be_viewed_not_only_leading_ones() -> None:
    network, example = resnet()
    found = dependencies(trace(network, example))
    keep = {"conv": [1, 2, 7], "stage1.0.conv1": [0, 5], "stage2.0.conv1": [3, 4, 5]}
    expected = outputs(prune(network, example, keep, found), example)[0]
    torch.testing.assert_close(view(network, example, keep, found)(*example), expected)


def test_sizes_are_counted_in_order_and_nested() -> None:
    network, example = resnet()
    elastic = Elastic(network, example)
    sizes = [elastic.share(w, d) for d in (0.3, 1.0) for w in (0.01, 0.3, 0.6, 1.0)]
    assert sizes[-1] == Prefix()
    assert dict(sizes[0].units) == {group.name: 1 for group in elastic.groups}
    assert dict(sizes[5].units)["conv"] == 2
    assert dict(sizes[5].units)["stage3.0.conv1"] == 10
    nested = [[a.within(b) for b in sizes] for a in sizes]
    assert nested == [[(i % 4 <= j % 4) and (i // 4 <= j // 4) for j in range(8)] for i in range(8)]
    rounded = dict(elastic.share(0.6, 1.0, round_to=4).units)
    assert rounded["conv"] == 4
    assert rounded["stage3.0.conv1"] == 20
    assert dict(elastic.share(0.1, 1.0, round_to=4).units)["stage3.0.conv1"] == 4
    assert dict(elastic.share(0.3, 1.0, round_to=8).units)["conv"] == 2  # too few to round
    assert elastic.prefix({"conv": 8}) == Prefix()
    for wrong in ({"conv": 0}, {"conv": 9}):
        with pytest.raises(BadInput, match="keeps 1 to 8"):
            elastic.prefix(wrong)
    with pytest.raises(UnknownName):
        elastic.prefix({}, {"stage9": 1})
    for share in ((0, 1), (1.1, 1), (1, 0), (1, 1.1)):
        with pytest.raises(BadInput, match="shares above 0"):
            elastic.share(*share)


def test_a_network_without_units_and_stacks_is_refused() -> None:
    with pytest.raises(NotApplicable, match="no part of this network is a prefix"):
        Elastic(nn.Linear(4, 2), torch.randn(2, 4))
