"""Widths and units against NumPy in float64, narrow networks against silenced ones, and what is found or refused."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netwright.compress.cfsp import Cfsp, narrowed, silenced
from netwright.compress.cfsp.find import blocks
from netwright.compress.cfsp.measure import angle, measure
from netwright.compress.cfsp.recover import ranks, recovered
from netwright.compress.cfsp.widths import counts, multiple, scores, shares
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.graph.trace import trace
from netwright.core.measure.cost import macs
from netwright.core.network import seeded
from netwright.core.progress import remarks
from netwright.core.split import ArraySplit, take
from netwright.core.task import Task
from netwright.models import build

WIDTH, HIDDEN, IDS, LENGTH = 8, 32, 11, 6


def language(count=24):
    tokens = torch.randint(IDS, (3 * count, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    parts = [tokens[i * count : (i + 1) * count] for i in range(3)]
    splits = [ArraySplit((p[:, :-1],), p[:, 1:]) for p in parts]
    return Task("letters", "classification", *splits, IDS, meaning="tokens")


@cache
def decoder(depth=3):
    """Its blocks turn their stream by more and more."""
    with seeded(0):
        network = build(
            "causal-transformer",
            (LENGTH,),
            IDS,
            vocabulary=IDS,
            width=WIDTH,
            depth=depth,
            heads=2,
            hidden=HIDDEN,
        ).eval()
        for i, block in enumerate(network.blocks):
            for weight in block.parameters():
                if weight.dim() > 1:
                    weight.data.normal_(0, 0.2 * (i + 1))
                    weight.data.mul_(torch.rand(len(weight), 1) * 2)  # units that differ
        network.head.weight.data.mul_(50)
    return network


class Ungated(nn.Module):
    def __init__(self, act=F.gelu):
        super().__init__()
        self.act = act
        self.first, self.second, self.drop = (
            nn.Linear(WIDTH, HIDDEN),
            nn.Linear(HIDDEN, WIDTH),
            nn.Dropout(0.5),
        )

    def forward(self, x):
        return x + self.drop(self.second(self.drop(self.act(self.first(x)))))


class Halves(nn.Module):
    """Gate and up projection in one layer; the gate is the second half. Gives more than its stream."""

    def __init__(self):
        super().__init__()
        self.both, self.out = nn.Linear(WIDTH, 2 * HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x, scale=1.0):
        value, gate = self.both(x).chunk(2, -1)
        return self.out(value * F.silu(gate)) + x, scale


class Stream(nn.Module):
    """(B, T, WIDTH) -> (B, 3)."""

    def __init__(self, *made):
        super().__init__()
        self.made, self.head = nn.ModuleList(made), nn.Linear(WIDTH, 3)

    def forward(self, x):
        for each in self.made:
            x = each(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.head(x.mean(1))


def vectors(dtype=torch.float32):
    draw = torch.Generator().manual_seed(1)
    parts = [
        ArraySplit((torch.randn(24, 5, WIDTH, generator=draw).to(dtype),), torch.arange(24) % 3)
        for _ in "abc"
    ]
    return Task("vectors", "classification", *parts, 3, meaning="sequence")


def found_in(network, task):
    example = task.example(2)
    graph = trace(network, example)
    return graph, blocks(network, graph, example)


@cache
def of_decoder():
    return found_in(decoder(), language())


def numpy_of(tensor):
    return tensor.detach().double().numpy()


@pytest.mark.parametrize("as_released", [False, True])
def test_widths_and_units_are_those_of_the_formulas(as_released):
    network, task = decoder(), language()
    method = Cfsp(ratio=0.5, a=0.5, b=0.7, c=1.3, as_released=as_released, examples=100)
    _, found = of_decoder()
    keep = method.kept(network, found, measure(network, found, task.train, Budget().start()))
    angles, kept_scores = [], []
    with torch.no_grad():
        double = copy.deepcopy(network).double()
        x, turn = double.token(task.train.inputs[0]), double._turn(0, LENGTH)
        for block in double.blocks:
            mixed = x + block.attention(block.norm1(x), turn)[0]
            y = block.norm2(mixed)
            units = numpy_of(F.silu(block.feed.gate(y)) * block.feed.up(y)).reshape(-1, HIDDEN)
            after, before = numpy_of(block(x, turn)[0]).reshape(-1, WIDTH), numpy_of(x).reshape(-1, WIDTH)
            cosine = (after * before).sum(1) / np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
            angles.append(np.arccos(cosine).sum() / np.pi)
            size = np.sqrt((units**2).sum(0))
            weights = [
                np.abs(numpy_of(block.feed.down.weight)) * size**0.7,
                np.abs(numpy_of(block.feed.up.weight)).T, np.abs(numpy_of(block.feed.gate.weight)).T,
            ]  # fmt: skip
            axis = 0 if as_released else 1
            total = sum(w / w.sum(axis, keepdims=True) for w in weights)
            kept_scores.append((total * size**1.3).mean(0))
            x = block(x, turn)[0]
    tokens = task.train.inputs[0].numel()
    sums = np.array(angles) / tokens * 131_072  # as many tokens as the paper's constant belongs to
    s = 1 / (1 + np.exp(-0.5 * (sums - sums.mean()) / 1e4))
    share = 0.5 * s / s.mean()
    assert share.max() < 1
    assert np.ptp(share) > 0.2
    widths = [len(kept) for kept in keep]
    assert all(width % 2 == 0 for width in widths)
    assert sum(widths) == 3 * HIDDEN / 2
    np.testing.assert_allclose(widths, share * HIDDEN, atol=2)
    assert np.ptp(widths) >= 4
    for kept, score in zip(keep, kept_scores, strict=True):
        assert np.array_equal(kept, np.sort(np.argsort(-score)[: len(kept)]))


def test_the_layers_of_what_stays_by_the_examples_that_a_budget_allows():
    network, task = decoder(), language()
    method = Cfsp(ratio=0.5, seed=1)
    done, (_, found) = method(network, task, Budget(samples=2)), of_decoder()
    seen = [measure(network, found, take(task.train, 2, seed), Budget().start()) for seed in (1, 0)]
    keep, other = (method.kept(network, found, each) for each in seen)
    assert any(not torch.equal(a, b) for a, b in zip(keep, other, strict=True))
    for old, new, kept in zip(network.blocks, done.blocks, keep, strict=True):
        assert torch.equal(new.feed.gate.weight, old.feed.gate.weight[kept])
        assert torch.equal(new.feed.up.weight, old.feed.up.weight[kept])
        assert torch.equal(new.feed.down.weight, old.feed.down.weight[:, kept])
        assert (
            new.feed.gate.out_features == new.feed.up.out_features == new.feed.down.in_features == len(kept)
        )


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_a_narrow_network_is_the_wide_one_with_silent_units(seed):
    """Whatever stays, with a gate, without one and with both in one layer, biases and all."""
    draw = torch.Generator().manual_seed(seed)
    network, task, graph, found = mixed()
    keep = [
        torch.randperm(HIDDEN, generator=draw)[: int(torch.randint(1, HIDDEN + 1, (), generator=draw))]
        .sort()
        .values
        for _ in found
    ]
    small = narrowed(network, graph, found, keep, task.example(2))
    x = torch.randn(4, 5, WIDTH, generator=draw)
    by_hand = copy.deepcopy(network)
    with torch.no_grad():
        for each, kept in zip(by_hand.made, keep, strict=True):
            gone = torch.ones(HIDDEN, dtype=torch.bool)
            gone[kept] = False
            (each.second if isinstance(each, Ungated) else each.out).weight[:, gone] = 0
        torch.testing.assert_close(small(x), by_hand(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(silenced(network, found, keep, x), by_hand(x), atol=1e-5, rtol=1e-5)
    assert macs(small, x) == 4 * (5 * WIDTH * sum(
        len(kept) * (3 if isinstance(each, Halves) else 2) for each, kept in zip(network.made, keep, strict=True)
    ) + 3 * WIDTH)  # fmt: skip


@cache
def mixed():
    with seeded(0):
        network = Stream(Ungated(), Halves(), Ungated(F.relu)).eval()
    return network, vectors(), *found_in(network, vectors())


def test_what_is_found():
    _, _, _, found = mixed()
    assert [(b.name, b.feed.gate, b.feed.up, b.feed.down, b.width) for b in found] == [
        ("made.0", None, "made.0.first", "made.0.second", HIDDEN),
        ("made.1", "made.1.both", "made.1.both", "made.1.out", HIDDEN),
        ("made.2", None, "made.2.first", "made.2.second", HIDDEN),
    ]
    assert not found[1].feed.gate_first


@cache
def llama():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from netwright.claims.beds.small_language import Causal

    config = transformers.LlamaConfig(
        vocab_size=IDS, hidden_size=16, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=True,
    )  # fmt: skip
    with seeded(0):
        return Causal(transformers.LlamaForCausalLM(config)).eval()


def test_a_llama_of_transformers_becomes_smaller_and_decodes_as_it_reads():
    network, task = llama(), language()
    with remarks() as said:
        done = Cfsp(ratio=0.35)(network, task, Budget())
    assert said == ["feed-forwards keep 62% to 67% of their units"]
    widths = [layer.mlp.down_proj.in_features for layer in done.model.model.layers]
    assert sorted(widths) == [30, 32]
    for layer, width in zip(done.model.model.layers, widths, strict=True):
        assert layer.mlp.gate_proj.weight.shape == layer.mlp.up_proj.weight.shape == (width, 16)
    assert done.model.lm_head.weight is done.model.model.embed_tokens.weight
    x = task.test.inputs[0][:2]
    with torch.no_grad():
        whole, cache, steps = done(x), None, []
        for i in range(LENGTH):
            logits, cache = done.step(x[:, i : i + 1], cache)
            steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-5)
    assert (whole - network(x)).abs().max() > 1e-4


class Encoder(nn.Module):
    """Torch's own layers, which skip their parts in evaluation mode."""

    def __init__(self):
        super().__init__()
        make = lambda first: nn.TransformerEncoderLayer(WIDTH, 2, HIDDEN, batch_first=True, norm_first=first)
        self.made, self.head = nn.ModuleList([make(True), make(False)]), nn.Linear(WIDTH, 3)

    def forward(self, x):
        for each in self.made:
            x = each(x)
        return self.head(x.mean(1))


def test_torchs_own_encoder():
    with seeded(0):
        network = Encoder().eval()
    done = Cfsp(ratio=0.5)(network, vectors(), Budget())
    widths = [layer.linear1.out_features for layer in done.made]
    assert sum(widths) == HIDDEN
    assert widths == [layer.linear2.in_features for layer in done.made]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BertModel", "T5EncoderModel"])
def test_other_families(name):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    small = {"num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": IDS}
    config = {
        "BertModel": lambda: transformers.BertConfig(hidden_size=WIDTH, intermediate_size=HIDDEN, **small),
        "T5EncoderModel": lambda: transformers.T5Config(
            vocab_size=IDS, d_model=WIDTH, d_ff=HIDDEN, d_kv=4, num_heads=2, num_layers=2,
            feed_forward_proj="gated-gelu", dense_act_fn="gelu",
        ),
    }[name]()  # fmt: skip

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = getattr(transformers, name)(config), nn.Linear(WIDTH, 3)

        def forward(self, tokens):
            return self.head(self.body(input_ids=tokens).last_hidden_state.mean(1))

    with seeded(0):
        network = Around().eval()
    tokens = torch.randint(IDS, (30, LENGTH), generator=torch.Generator().manual_seed(0))
    task = Task.from_arrays(tokens, torch.arange(30) % 3, meaning="tokens")
    _, found = found_in(network, task)
    assert [block.name.rpartition(".")[2] for block in found] == ["0", "1"]
    done = Cfsp(ratio=0.5)(network, task, Budget())
    left = [done.get_submodule(block.feed.down).in_features for block in found]
    assert sum(left) == HIDDEN


def test_shares():
    angles = torch.tensor([0.1, 0.2, 0.6])
    gain = 128 * 1024 / 1e4
    s = 1 / (1 + np.exp(-gain * (angles.double().numpy() - 0.3)))
    np.testing.assert_allclose(shares(angles, [4, 4, 4], 0.6), 0.4 * s / s.mean(), rtol=1e-5)
    full = shares(angles, [4, 4, 4], 0.2)  # the last one would keep more than it has
    assert full.max() == pytest.approx(1)
    assert full.mean() == pytest.approx(0.8)
    released = shares(angles, [4, 4, 4], 0.2, margin=1.05)
    np.testing.assert_allclose(released, 0.8 + (full - 0.8) / 1.05, rtol=1e-6)
    np.testing.assert_allclose(shares(angles, [4, 4, 4], 0.3, 0.0), 0.7)
    np.testing.assert_allclose(shares(angles, [4, 4, 4], 0.0), 1.0)
    widths = [10, 20, 70]
    assert (shares(angles, widths, 0.5) * torch.tensor(widths)).sum() == pytest.approx(50)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3000), st.floats(0, 1)), min_size=1, max_size=8), st.integers(1, 128)
)
def test_counts_are_multiples_and_add_up(pairs, round_to):
    widths = [width for width, _ in pairs]
    kept = torch.tensor([share for _, share in pairs], dtype=torch.float64)
    found = counts(kept, widths, round_to)
    steps = [multiple(width, round_to) for width in widths]
    wanted = [share * width for width, share in pairs]
    for number, width, step, want in zip(found, widths, steps, wanted, strict=True):
        assert 1 <= number <= width
        assert number % step == 0 or number == width
        assert abs(number - want) < step + 1e-6 or number == step
        assert step <= round_to
        assert step == 1 or 16 * step <= width
    if all(want >= step for want, step in zip(wanted, steps, strict=True)):
        assert abs(sum(found) - sum(wanted)) <= max(steps) / 2 + 1e-6


def test_multiples():
    assert [multiple(w, 128) for w in (11008, 2048, 2047, 1536, 384, 33, 20, 3)] == [
        128,
        128,
        64,
        64,
        16,
        2,
        1,
        1,
    ]
    assert multiple(1536, 96) == 96
    assert counts(torch.tensor([0.65, 0.65]), [1536, 1536], 128) == [1024, 960]
    assert counts(torch.tensor([0.0, 1.0]), [100, 100], 4) == [4, 100]
    assert counts(torch.tensor([1.0]), [70], 4) == [70]


def test_released_scores_forget_the_weights():
    network, (_, found) = decoder(), of_decoder()
    sizes = torch.rand(HIDDEN) + 0.1
    released = scores(network, found[0], sizes, 0.5, 1.5, as_released=True)
    torch.testing.assert_close(released, 3 / WIDTH * sizes**1.5)
    ours = scores(network, found[0], sizes, 0.5, 1.5)
    ratio = ours / sizes**1.5
    assert ratio.max() > 1.5 * ratio.min()
    plain = mixed()
    torch.testing.assert_close(scores(plain[0], plain[3][0], sizes, as_released=True), 2 / WIDTH * sizes)
    torch.testing.assert_close(scores(plain[0], plain[3][1], sizes, as_released=True), 3 / WIDTH * sizes)


def test_angles():
    a = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    b = torch.tensor([[0.0, 5.0], [-1.0, 0.0], [0.0, 0.1], [1.0, 1e-5]])
    found = angle(a, b)
    np.testing.assert_allclose(found[:3], [0.5, 1.0, 0.0], atol=1e-6)
    assert found[3].item() == pytest.approx(1e-5 / np.pi, rel=1e-3)


def test_one_pass_over_some_examples():
    network, task = decoder(), language()
    seen = []
    handle = network.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    try:
        _, found = of_decoder()
        seen.clear()
        meter = Budget().start()
        whole = measure(network, found, task.train, meter)
        assert seen == [8, 8, 8]
        assert meter.samples == 24
        seen.clear()
        part = measure(network, found, task.train, Budget(seconds=0).start())
        assert seen == [8]
    finally:
        handle.remove()
    first = task.train.select(torch.arange(8))
    torch.testing.assert_close(part.angles, measure(network, found, first, Budget().start()).angles)
    assert not torch.allclose(part.angles, whole.angles)


def test_recovery_learns_low_rank_changes_of_the_blocks_alone():
    network = decoder()
    draw = torch.Generator().manual_seed(0)
    tokens = (torch.randint(IDS, (96, 1), generator=draw) + torch.arange(LENGTH + 1)) % IDS  # one counts up
    parts = [ArraySplit((t[:, :-1],), t[:, 1:]) for t in tokens.split(32)]
    task = Task("counting", "classification", *parts, IDS, meaning="tokens")
    method = Cfsp(ratio=0.5, examples=20, epochs=4, lr=5e-2, rank=2, batch_size=8, seed=3)
    network = copy.deepcopy(network)
    network.token.weight.requires_grad_(False)
    after, (graph, found) = method(network, task, Budget()), of_decoder()
    seen = measure(network, found, take(task.train, 20, 3), Budget().start())
    before = narrowed(network, graph, found, method.kept(network, found, seen), task.example(2))
    loss = lambda net: task.loss(net(task.test.inputs[0]), task.test.targets).item()
    assert loss(after) < loss(before) - 0.3
    wanted = ranks(seen.angles, 2)
    assert len(set(wanted)) > 1
    fit, meter = Fit(epochs=4, lr=5e-2, batch_size=8, weight_decay=0.0, seed=3), Budget().start()
    by_hand = recovered(before, found, wanted, task, fit, meter)
    assert meter.samples == 4 * 32
    assert after.state_dict().keys() == before.state_dict().keys() == by_hand.state_dict().keys()
    for name, tensor in by_hand.named_parameters():
        torch.testing.assert_close(after.get_parameter(name), tensor, atol=1e-5, rtol=1e-4)
        assert after.get_parameter(name).requires_grad == (name != "token.weight")
    for name, old in before.named_parameters():
        change = (after.get_parameter(name) - old).detach()
        if old.dim() < 2 or not name.startswith("blocks."):
            assert not change.any(), name
        else:
            values = torch.linalg.svdvals(change)
            rank = wanted[int(name.split(".")[1])]
            assert int((values > 1e-4 * values[0]).sum()) == min(rank, *old.shape), name


def test_ranks_follow_the_angles():
    assert ranks(torch.tensor([0.1, 0.2, 0.3]), 8) == [4, 8, 12]
    assert ranks(torch.tensor([0.001, 1.0]), 4) == [1, 8]
    assert ranks(torch.zeros(2), 4) == [1, 1]


class Flat(nn.Module):
    """Two feed-forwards in one module: no block has its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        x = x + self.b(F.gelu(self.a(x)))
        return self.head((x + self.d(F.gelu(self.c(x)))).mean(1))


class Branch(nn.Module):
    """A feed-forward that is added outside of its module, which does not say what the stream was."""

    def __init__(self):
        super().__init__()
        self.made = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 9), nn.ReLU(), nn.Linear(9, WIDTH)) for _ in "ab"
        )
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        for each in self.made:
            x = x + each(x)
        return self.head(x.mean(1))


class Twice(Stream):
    def forward(self, x):
        return super().forward(self.made[0](x))


@pytest.mark.parametrize(
    "make",
    [
        Flat, Branch, lambda: Twice(Ungated()),
        lambda: Stream(nn.Sequential(nn.Linear(WIDTH, 9), nn.ReLU(), nn.Linear(9, WIDTH))),
    ],
)  # fmt: skip
def test_networks_without_such_blocks_are_refused(make):
    with pytest.raises(NotApplicable, match="no block with a feed-forward"):
        Cfsp()(make().eval(), vectors(), Budget())


class Particular(Ungated):
    def forward(self, x):
        return super().forward(x) * (1 if self.first.out_features == HIDDEN else 1.01)


def test_a_network_that_notices_is_refused():
    with pytest.raises(NotApplicable, match="in a way that cannot be followed"):
        Cfsp(ratio=0.5)(Stream(Particular()).eval(), vectors(), Budget())


class Wild(Ungated):
    """Makes much of a rounding."""

    def forward(self, x):
        return torch.sin(3e3 * super().forward(x))


def test_roundings_that_grow_are_no_difference():
    with seeded(0):
        network = Stream(Wild(), Wild()).eval()
    keep = [torch.arange(1, HIDDEN, 2)] * 2
    graph, found = found_in(network, vectors())
    x = vectors().example(2)[0]
    small = narrowed(network, graph, found, keep, x)
    with torch.no_grad():
        assert (small(x) - silenced(network, found, keep, x)).abs().max() > 1e-3
        for exact in (network, small):
            exact.double()
        torch.testing.assert_close(small(x.double()), silenced(network, found, keep, x.double()))


@pytest.mark.parametrize(
    "fields", [{"ratio": 1.0}, {"ratio": -0.1}, {"examples": 0}, {"round_to": 0}, {"rank": 0}]
)
def test_settings_that_mean_nothing(fields):
    with pytest.raises(BadInput, match=r"ratio is a share|1 at least"):
        Cfsp(**fields)(decoder(), language(), Budget())


def test_a_single_feed_forward_is_a_block_of_the_whole():
    """The importance of one block alone decides nothing."""
    network = Stream(Ungated()).eval()
    assert [block.name for block in found_in(network, vectors())[1]] == ["made.0"]
    done = Cfsp(ratio=0.25)(network, vectors(), Budget())
    assert done.made[0].first.out_features == 24
    half = Cfsp(ratio=0.25)(copy.deepcopy(network).bfloat16(), vectors(torch.bfloat16), Budget())
    assert half.made[0].first.weight.shape == (24, WIDTH)
