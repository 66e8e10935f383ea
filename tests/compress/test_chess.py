"""Channel thresholds against NumPy in float64, kernels against the masked form, and what is found and what is not."""

from __future__ import annotations

import copy
import pickle
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netwright.compress.chess import Chess, realised
from netwright.compress.chess.calibrate import Averaged, Pooled
from netwright.compress.chess.find import attention
from netwright.compress.chess.layers import ACTIVATIONS, Gate, GateAndUp, SparseInput, Up
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.graph.feeds import gated
from netwright.core.graph.trace import trace
from netwright.core.measure.cost import macs
from netwright.core.network import seeded
from netwright.core.progress import remarks
from netwright.core.task import Task
from netwright.models import build

WIDTH, HIDDEN = 12, 20


class Feed(nn.Module):
    """down(act(gate(x)) * up(x)), or the product the other way round."""

    def __init__(self, act=F.silu, bias=False, turned=False):
        super().__init__()
        self.act, self.turned = act, turned
        self.a, self.b = nn.Linear(WIDTH, HIDDEN, bias=bias), nn.Linear(WIDTH, HIDDEN, bias=bias)
        self.c, self.drop = nn.Linear(HIDDEN, 3, bias=bias), nn.Dropout(0.5)
        with torch.no_grad():  # channels whose sizes differ, as those of trained networks do
            self.b.weight.mul_(torch.logspace(-1, 1, HIDDEN)[:, None])

    def forward(self, x):
        if self.turned:
            return self.c(self.drop(self.b(x) * self.act(self.a(x))))
        return self.c(self.act(self.a(x)) * self.b(x))


class Halves(Feed):
    """Gate and up projection in one layer; the gate is the second half."""

    def __init__(self, act=F.gelu, bias=True):
        super().__init__(act, bias)
        self.both = nn.Linear(WIDTH, 2 * HIDDEN, bias=bias)
        del self.a, self.b

    def forward(self, x):
        value, gate = self.both(x).chunk(2, -1)
        return self.c(value * self.act(gate))


def task(count=40, shape=(5, WIDTH)):
    def part(seed):
        x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
        return x, torch.arange(count) % 3

    (x, y), val, test = part(0), part(1), part(2)
    return Task.from_arrays(x, y, val=val, test=test, meaning="sequence")


class Pooling(nn.Module):
    def __init__(self, feed):
        super().__init__()
        self.feed = feed

    def forward(self, x):
        return self.feed(x).mean(1)


@cache
def made(feed, data=None, **fields):
    """The network, what the method makes of it, and the task; do not change them."""
    with seeded(0):
        network = Pooling(feed() if isinstance(feed, type) else feed).eval()
    data = data or task()
    return network, Chess(**fields)(network, data, Budget()), data


def silu(z):
    return z / (1 + np.exp(-z))


@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("thresholds", ["channel", "layer"])
def test_thresholds_are_those_of_the_paper(thresholds, as_released):
    network, done, data = made(Feed, sparsity=0.3, thresholds=thresholds, as_released=as_released)
    x = data.train.inputs[0].double().numpy()
    g = np.abs(silu(x @ network.feed.a.weight.detach().double().numpy().T))
    m = np.abs(x @ network.feed.b.weight.detach().double().numpy().T).mean((0, 1))
    if thresholds == "layer":
        m = np.ones_like(m)
    scores = g * m
    if as_released:  # of each example's 100 scores the 31st, then the mean
        tau = np.sort(scores.reshape(len(x), -1), 1)[:, 30].mean()
    else:
        tau = np.sort(scores.ravel())[int(0.3 * scores.size)]
    np.testing.assert_allclose(done.feed.a.threshold.numpy(), tau / m, rtol=1e-4)
    keep = g >= tau / m
    if not as_released:
        assert abs((~keep).mean() - 0.3) < 1e-3
    h = np.where(keep, silu(x @ network.feed.a.weight.detach().double().numpy().T), 0)
    h = h * (x @ network.feed.b.weight.detach().double().numpy().T)
    expected = (h @ network.feed.c.weight.detach().double().numpy().T).mean(1)
    # thresholds lie on scores: rounding may put those on either side
    found = done(data.train.inputs[0]).detach().numpy()
    assert np.mean(np.abs(found - expected) < 1e-4) > 0.95


@pytest.mark.parametrize(
    "feed",
    [
        Feed(bias=True), Feed(F.gelu, turned=True), Feed(torch.sigmoid, bias=True), Feed(F.relu), Halves(),
        Halves(F.silu, bias=False), Feed(lambda z: F.gelu(z, approximate="tanh")),
    ],
)  # fmt: skip
def test_a_single_row_gives_what_the_masked_form_gives(feed):
    network, done, _ = made(feed, sparsity=0.75)
    x = torch.randn(30, 1, WIDTH, generator=torch.Generator().manual_seed(5))
    many = done(x).detach()
    with torch.no_grad():
        one = torch.cat([done(row) for row in x[:, None]])
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-5)
    assert (done(x) - network(x)).abs().max() > 1e-3  # something is switched off
    assert realised(done, task().val)[next(iter(realised(done, task().val)))] > 0.6


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([Feed, Halves]), st.floats(-3, 3))
def test_any_thresholds_and_inputs(seed, kind, level):
    """All channels, none, and anything between."""
    done, draw = copy.deepcopy(made(kind)[1]), torch.Generator().manual_seed(seed)
    layer = next(m for m in done.modules() if isinstance(m, (Gate, GateAndUp)))
    layer.threshold.copy_(torch.rand(HIDDEN, generator=draw) * 10**level)
    x = torch.randn(3, 1, WIDTH, generator=draw)
    with torch.no_grad():
        rows = torch.cat([done(row[None]) for row in x])
        torch.testing.assert_close(rows, done(x), atol=1e-5, rtol=1e-5)


def test_rows_that_are_switched_off_are_not_read():
    """A row costs the gate and what is active of the rest; several rows cost everything."""
    for kind in (Feed, Halves):
        _, done, _ = made(kind)
        layer = next(m for m in done.modules() if isinstance(m, (Gate, GateAndUp)))
        x = torch.randn(1, 1, WIDTH)
        with torch.no_grad():
            active = int(layer.active(x).sum())
            assert 0 < active < HIDDEN
            assert macs(done, x) == WIDTH * HIDDEN + active * (WIDTH + 3)
            assert macs(done, torch.randn(1, 2, WIDTH)) == 2 * HIDDEN * (2 * WIDTH + 3)


def test_a_network_that_asks_for_the_up_projection_first_is_right_too():
    _, done, _ = made(Feed(turned=True))
    x = torch.randn(2, 1, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([done(x[:1]), done(x[1:])]), done(x), atol=1e-5, rtol=1e-5)


def test_channels_that_differ_in_size_are_told_apart():
    """Less is lost than by one threshold for all, at the same share."""
    losses = {}
    for kind in ("channel", "layer"):
        network, done, data = made(Feed, thresholds=kind)
        x = data.test.inputs[0]
        losses[kind] = (done(x) - network(x)).pow(2).mean().item()
        assert realised(done, data.train)["feed.a"] == pytest.approx(0.5, abs=1e-3)
    assert losses["channel"] < 0.5 * losses["layer"]


def test_a_language_model_decodes_as_it_reads():
    with seeded(0):
        network = build("causal-transformer", (16,), 10, vocabulary=10, width=16, depth=2, heads=2).eval()
        for weight in network.parameters():
            weight.data.mul_(3)  # so that attention and channels differ
    tokens = torch.randint(10, (60, 17), generator=torch.Generator().manual_seed(0))
    parts = [(tokens[i : i + 20, :-1], tokens[i : i + 20, 1:]) for i in (0, 20, 40)]
    data = language(parts)
    with remarks() as said:
        done = Chess(attention=True)(network, data, Budget())
    assert any(text.endswith("% switched off on validation data, 50 % asked") for text in said)
    kinds = {name: type(m) for name, m in done.named_modules() if type(m).__module__.endswith("chess.layers")}
    assert kinds == {
        f"blocks.{i}.{name}": kind
        for i in range(2)
        for name, kind in {
            "attention.query": SparseInput, "attention.out": SparseInput, "feed.gate": Gate, "feed.up": Up,
            "feed.down": SparseInput,
        }.items()
    }  # fmt: skip
    x = parts[2][0][:1]
    with torch.no_grad():
        whole = done(x)
        steps, cache = [], None
        for i in range(x.shape[1]):
            logits, cache = done.step(x[:, i : i + 1], cache)
            steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-5)
    query = done.blocks[0].attention.query
    seen = network.blocks[0].norm1(network.token(parts[0][0]))  # what the first block's queries are made from
    assert query.threshold.item() == pytest.approx(
        seen.abs().flatten().sort().values[seen.numel() // 2].item(), rel=1e-4
    )
    shares = realised(done, data.train)
    assert len(shares) == 6
    for name, share in shares.items():  # what comes later gets other inputs than it was calibrated on
        assert share == pytest.approx(0.5, abs=0.002 if name == "blocks.0.attention.query" else 0.15)


def language(parts):
    from netwright.core.split import ArraySplit

    splits = [ArraySplit((x,), y) for x, y in parts]
    return Task("letters", "classification", *splits, 10, meaning="tokens")


def test_copies_and_pickles_work_for_themselves():
    _, done, _ = made(Feed)
    x = torch.randn(1, 1, WIDTH)
    with torch.no_grad():
        expected = done(x)
        for other in (copy.deepcopy(done), pickle.loads(pickle.dumps(done))):
            assert other.feed.a.beside is other.feed.b.gate
            assert other.feed.a.beside is not done.feed.a.beside
            assert torch.equal(other(x), expected)
            assert other.feed.c.weight.t().is_contiguous()  # column by column still


def test_an_up_projection_takes_what_is_meant_for_it_alone():
    _, done, _ = made(Feed)
    feed, x, other = done.feed, torch.randn(1, 1, WIDTH), torch.randn(1, 1, WIDTH)
    with torch.no_grad():
        feed.a(x)
        dense = F.linear(other, feed.b.weight)
        assert torch.equal(feed.b(other), dense)  # another input: everything
        feed.a(x)
        assert (feed.b(x) == 0).any()
        assert not (feed.b(x) == 0).any()  # taken already


class Elsewhere(Feed):
    """The gate's output is read by someone else too."""

    def forward(self, x):
        z = self.a(x)
        return self.c(self.act(z) * self.b(x)) + z[..., :3]


class Twice(Feed):
    """The same layers run twice."""

    def forward(self, x):
        y = self.c(self.act(self.a(x)) * self.b(x))
        return self.c(self.act(self.a(x + y.mean())) * self.b(x + y.mean()))


class OtherInput(Feed):
    def forward(self, x):
        return self.c(self.act(self.a(x)) * self.b(x + 1))


class Ungated(Feed):
    def forward(self, x):
        return self.c(self.act(self.a(x)) * self.a(x))


class Functional(Feed):
    """Weights that are not used through their module."""

    def forward(self, x):
        return self.c(self.act(F.linear(x, self.a.weight)) * self.b(x))


@pytest.mark.parametrize("kind", [Elsewhere, Twice, OtherInput, Ungated, Functional])
def test_what_could_not_be_replaced_is_refused(kind):
    with pytest.raises(NotApplicable, match="no gated feed-forward"):
        made(kind)


def test_hooks_parametrisations_and_shared_weights_are_left_alone():
    hooked = Feed()
    hooked.a.register_forward_hook(lambda *_: None)
    learned = Feed()
    nn.utils.parametrizations.weight_norm(learned.b)
    shared = Feed()
    shared.spare = nn.Linear(WIDTH, HIDDEN, bias=False)
    shared.spare.weight = shared.b.weight
    for feed in (hooked, learned, shared):
        with pytest.raises(NotApplicable, match="no gated feed-forward"):
            made(feed)


class Particular(Feed):
    """Computes something else, if only a little, when its layer is not the one that it knows."""

    def forward(self, x):
        return self.c(self.act(self.a(x)) * self.b(x)) * (1 if type(self.a) is nn.Linear else 1.01)


def test_a_network_that_notices_the_replacement_is_refused():
    with pytest.raises(NotApplicable, match="in a way that cannot be followed"):
        made(Particular)


def test_attention_is_asked_for_where_there_is_none():
    with pytest.raises(NotApplicable, match="leave attention out"):
        made(Feed, attention=True)


@pytest.mark.parametrize("fields", [{"sparsity": 1.0}, {"sparsity": -0.1}, {"thresholds": "row"}])
def test_settings_that_mean_nothing(fields):
    with pytest.raises(BadInput, match=r"sparsity is a share|use channel or layer"):
        made(Feed, **fields)


def test_names_and_order_of_what_is_found():
    network = Pooling(Halves())
    (found,) = gated(network.eval(), trace(network, torch.randn(2, 5, WIDTH)))
    assert (found.gate, found.up, found.down) == ("feed.both", "feed.both", "feed.c")
    assert (found.activation, found.gate_first) == ("gelu", False)
    vit = build("vit", (1, 8, 8), 3, width=8, depth=1, heads=2).eval()
    graph = trace(vit, torch.randn(2, 1, 8, 8))
    assert gated(vit, graph) == []
    assert attention(vit, graph) == ["blocks.0.attention.query", "blocks.0.attention.out"]


def test_activations_are_those_of_their_names_and_0_where_they_say():
    z = torch.linspace(-4, 4, 33, dtype=torch.float64)
    tanh = torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3))
    known = {
        "silu": z * torch.sigmoid(z), "gelu": 0.5 * z * (1 + torch.erf(z / 2**0.5)), "gelu-tanh": 0.5 * z * (1 + tanh),
        "relu": z.clamp_min(0), "mish": z * torch.tanh(F.softplus(z)), "hardswish": z * (z + 3).clamp(0, 6) / 6,
        "tanh": z.tanh(), "sigmoid": 1 / (1 + (-z).exp()),
    }  # fmt: skip
    assert known.keys() == ACTIVATIONS.keys()
    for name, (function, off) in ACTIVATIONS.items():
        torch.testing.assert_close(function(z), known[name], atol=1e-9, rtol=1e-9)
        assert function(torch.tensor(off)) == 0


def test_quantiles():
    values = torch.arange(100.0).view(4, 25)[torch.tensor([2, 0, 3, 1])]
    pooled, averaged = Pooled(0.5, 4, 0), Averaged(0.5)
    for rows in values.split(3):
        pooled.add(rows)
        averaged.add(rows)
    assert pooled.value() == 50
    assert averaged.value() == 49.5  # the mean of 12, 37, 62, 87
    exact = Pooled(0.5, 1 << 20, 0)  # four values of each example, and no more
    exact.add(torch.arange(8.0).view(2, 4))
    assert exact.held[0].tolist() == list(range(8))
    few = Pooled(0.25, 1 << 21, 0)  # more than can be held: two values of each example
    few.add(torch.arange(2000.0).repeat(3, 1))
    assert len(few.held[0]) == 6


def test_a_budget_of_samples_counts_both_passes():
    _, done, data = made(Feed)
    small = Chess()(made(Feed)[0], data, Budget(samples=16))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:8]
    few = Task.from_arrays(
        data.train.inputs[0][order], data.train.targets[order], val=(*task().val.inputs, task().val.targets),
        test=(*task().test.inputs, task().test.targets),
    )  # fmt: skip
    assert torch.allclose(small.feed.a.threshold, made(Feed, few)[1].feed.a.threshold)
    assert not torch.allclose(small.feed.a.threshold, done.feed.a.threshold)
