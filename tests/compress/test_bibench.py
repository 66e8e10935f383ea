"""Eight operators against their formulas, layers of bits against those that learned, and the tracks' arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.compress.striped import stripes
from tests.conformance.networks import Bare, Concatenating, Separable, Shared
from torch import nn

from netwright.compress.bibench import BiBench, Subject, Tracks
from netwright.compress.bibench.corruptions import CORRUPTIONS
from netwright.compress.bibench.tracks import complexity, overall, tracks
from netwright.compress.bibench.tracks import found as summary
from netwright.compress.parts.binary import OPERATORS, Learned, advance, learning, packed
from netwright.compress.parts.binary.find import found, rectifiers
from netwright.compress.parts.binary.layers import Rectifier
from netwright.compress.parts.binary.operators import Site
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.graph import trace
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.task import Task
from netwright.core.weights.binary import BinaryConv, PackedSigns
from netwright.models import build


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


W = 0.8 * draw(5, 4, 3, 3)  # some beyond 1
G = draw(5, 4, 3, 3, seed=1)
N = 4 * 9
SIGNS = torch.where(W >= 0, 1.0, -1.0)
SIZES = W.abs().mean((1, 2, 3), keepdim=True)
INSIDE = (W.abs() <= 1).float()


def series_slope(x: torch.Tensor, n: int) -> torch.Tensor:
    """Of sign's Fourier series, term by term."""
    return 0.4 / math.pi * sum((0.1 * (2 * i + 1) * x).cos() for i in range(n + 1)) * (x.abs() <= 1)


def revived(w: torch.Tensor, tau: float) -> torch.Tensor:
    """ReCU before its signs."""
    w = w - w.mean((1, 2, 3), keepdim=True)
    w = w / ((w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt() / (2 * 2**0.5))
    end = float(-w.detach().abs().mean() * math.log(2 - 2 * tau))
    return w.clamp(-end, end)


def recu_gradient(tau: float) -> torch.Tensor:
    w = W.clone().requires_grad_()
    (revived(w, tau) * G).sum().backward()
    return w.grad


# values, gradient
WEIGHTS = {
    "bnn": (SIGNS, G * INSIDE),
    "xnor": (SIZES * SIGNS, G * (1 / N + SIZES * INSIDE)),
    "dorefa": (W.abs().mean() * SIGNS, G),
    "bireal": (SIZES * SIGNS, G * SIZES * INSIDE),
    "xnor++": (SIGNS, G * INSIDE),
    "react": (SIZES * SIGNS, G * INSIDE),
    "recu": (revived(W, 0.85).sign(), None),  # see recu_gradient
    "fda": (SIZES * SIGNS, G * SIZES * series_slope(W, 9)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_weights_and_their_gradients_are_the_papers(name):
    made = OPERATORS[name].weight(Site(W, 1, (6, 6))).eval()
    w = W.clone().requires_grad_()
    y = made(w)
    (y * G).sum().backward()
    values, gradient = WEIGHTS[name]
    gradient = recu_gradient(0.85) if gradient is None else gradient
    torch.testing.assert_close(y, values)
    torch.testing.assert_close(w.grad, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("axis", [1, -1])
def test_inputs_and_their_gradients_are_the_papers(name, axis):
    x = draw(3, 4, 6) if axis == 1 else draw(3, 6, 4)
    made = OPERATORS[name].inputs(Site(W, axis, ())).eval()
    shift = torch.zeros_like(x)
    if name == "react":
        with torch.no_grad():
            made.shift.copy_(draw(4, seed=3))
        shift = shift + (made.shift.detach()[:, None] if axis == 1 else made.shift.detach())
    x.requires_grad_()
    y = made(x)
    y.sum().backward()
    z = (x + shift).detach()
    parabolas = (2 - 2 * z.abs()).clamp(min=0)
    box = (z.abs() <= 1).float()
    slope = {"bireal": parabolas, "react": parabolas, "recu": parabolas, "fda": series_slope(z, 9)}.get(
        name, box
    )
    assert torch.equal(y, torch.where(z >= 0, 1.0, -1.0))
    torch.testing.assert_close(x.grad, slope, rtol=1e-4, atol=1e-5)


def test_schedules():
    recu = OPERATORS["recu"].weight(Site(W, 1, (6, 6)))
    fda = OPERATORS["fda"].weight(Site(W, 1, (6, 6)))
    seen = []
    for done in (0.0, 0.5, 1.0):
        advance(nn.ModuleList([recu, fda]), done)
        seen.append((float(recu.tau), fda.slope.n, float(fda.weight)))
    middle = 0.85 + 0.14 * (math.exp(0.5) - 1) / (math.e - 1)
    assert [s[0] for s in seen] == pytest.approx([0.85, middle, 0.99])
    assert [s[1] for s in seen] == [9, 13, 18]
    assert [s[2] for s in seen] == pytest.approx([0.1, 0.05, 0.0], abs=1e-6)


def test_the_noise_of_fda_is_for_training_alone_and_fades():
    made = OPERATORS["fda"].inputs(Site(draw(5, 130, 1, 1), 1, (6, 6))).train()
    x = draw(2, 130, 3)
    rows = x.movedim(1, -1)
    assert made.noise.into.weight.shape == (2, 130)
    noise = torch.relu(rows @ made.noise.into.weight.t()) @ made.noise.out.weight.t() + 0.1 * rows.sin()
    signs = torch.where(x >= 0, 1.0, -1.0)
    torch.testing.assert_close(made(x), signs + 0.1 * noise.movedim(-1, 1))
    advance(made, 0.5)
    torch.testing.assert_close(made(x), signs + 0.05 * noise.movedim(-1, 1))
    assert torch.equal(made.eval()(x), signs)


def learned(layer: nn.Module, name: str, places: tuple[int, ...]) -> Learned:
    """Whose every learned number differs from where it starts."""
    with seeded(5):
        made = Learned(layer, OPERATORS[name], places)
        for parameter in made.parameters():
            if parameter.shape != layer.weight.shape:
                nn.init.normal_(parameter, 0.3, 0.5)
        nn.init.normal_(made.norm.running_mean)
        nn.init.uniform_(made.norm.running_var, 0.2, 2.0)
    return made.eval()


def test_a_layer_is_its_parts_in_order():
    layer, x = nn.Conv2d(4, 5, 3, 2, 1), draw(2, 4, 6, 6)
    z = lambda made: (
        (x - made.norm.running_mean[:, None, None]) / (made.norm.running_var[:, None, None] + 1e-5).sqrt()
    )
    signs = lambda v: torch.where(v >= 0, 1.0, -1.0)
    plain = lambda v: F.conv2d(signs(v), signs(made.parametrizations.weight.original), None, 2, 1)
    made = learned(layer, "xnor", (3, 3))
    sizes = made.parametrizations.weight.original.abs().mean((1, 2, 3))[:, None, None]
    windows = F.conv2d(z(made).abs().mean(1, keepdim=True), torch.full((1, 1, 3, 3), 1 / 9), None, 2, 1)
    bias = made.bias[:, None, None]
    torch.testing.assert_close(made(x), plain(z(made)) * sizes * windows + bias)
    made = learned(layer, "xnor++", (3, 3))
    high, wide = made.places.scales
    assert high.shape == (3, 1)
    expected = plain(z(made)) * made.scale.scale[:, None, None] * high * wide + made.bias[:, None, None]
    torch.testing.assert_close(made(x), expected)


LAYERS = [
    (nn.Conv2d(70, 6, 3, 2, 1), (4, 4), (2, 70, 8, 8)),
    (nn.Conv2d(5, 3, (3, 1), padding="same", dilation=2, bias=False), (5, 6), (2, 5, 5, 6)),
    (nn.Conv1d(6, 4, 3, padding="valid"), (6,), (2, 6, 8)),
    (nn.Linear(20, 7), (), (2, 3, 20)),
]


@pytest.mark.parametrize("name", OPERATORS)
def test_bits_give_what_was_learned(name):
    for layer, places, shape in LAYERS:
        made, x = learned(layer, name, places), draw(*shape, seed=7)
        small = made.packed()
        assert sum(isinstance(m, PackedSigns) for m in small.modules()) == 1
        with torch.no_grad():
            expected = made(x)
            torch.testing.assert_close(small(x), expected, rtol=1e-4, atol=1e-5)
        assert expected.shape[1:] == ((layer.weight.shape[0], *places) if places else (3, 7))


IMAGE_OF_TWO = (torch.zeros(2, 2, 8, 8),)


@pytest.mark.parametrize(
    ("network", "expected", "relus"),
    [
        # with shortcuts; neither stem nor head
        (build("resnet", (2, 8, 8), 3, depth=8, width=4), "conv1 conv2 conv1 conv2 0 conv1 conv2 0", 7),
        (Separable(), "pointwise", 0),  # grouped ones stay; its one ReLU runs again and again
        (Concatenating(), "join last", 0),  # two first layers
        (Bare(), "conv2 hidden", 0),
    ],
    ids=lambda v: type(v).__name__,
)
def test_first_and_last_layers_stay_real(network, expected, relus):
    graph = trace(network.eval(), IMAGE_OF_TWO)
    places = found(network, graph)
    assert " ".join(place.name.rpartition(".")[2] for place in places) == expected
    assert len(rectifiers(network, graph)) == relus
    for place in places:
        assert len(place.places) == (0 if place.name == "hidden" else 2)


@pytest.mark.parametrize("network", [Shared(), nn.Conv2d(2, 3, 8)], ids=["shared", "one"])
def test_what_runs_twice_or_is_shared_or_stands_alone_stays_real(network):
    with pytest.raises(NotApplicable, match="first and the last"):
        found(network, trace(network.eval(), IMAGE_OF_TWO))


def test_a_rectifier_shifts_bends_and_shifts():
    made = Rectifier(2)
    with torch.no_grad():
        made.before.copy_(torch.tensor([1.0, -1.0]))
        made.after.copy_(torch.tensor([0.5, 0.0]))
    assert made.slope.tolist() == [0.25, 0.25]
    assert made(torch.tensor([[3.0, 3.0], [-1.0, -1.0]])).tolist() == [[2.5, 4.0], [0.0, 0.0]]


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Task]:
    return stripes(width=8, epochs=6)


def test_training_brings_back_what_signs_lost(trained):
    network, task = trained
    before = packed(learning(network, task, OPERATORS["fda"], 0))
    learnt, made = BiBench("fda", epochs=4, batch_size=32, lr=1e-2).pair(network, task, Budget())
    scores = [evaluate(n, task, "test")["accuracy"] for n in (network, learnt, made)]
    assert scores[0] > 0.9
    assert scores[1] == scores[2] > 0.85
    x, y = next(task.train.batches(200))
    assert task.loss(made(x), y) < 0.7 * task.loss(before(x), y)
    fading = next(m for m in learnt.modules() if hasattr(m, "slope") and hasattr(m, "noise"))
    assert fading.slope.n == 18
    assert isinstance(made[3], BinaryConv)
    with pytest.raises(BadInput, match="bireal"):
        BiBench("birreal")(network, task, Budget())
    with pytest.raises(NotApplicable, match="float32"):
        BiBench()(network.double(), task, Budget())
    network.float()


def test_the_tracks(trained):
    network, task = trained
    made = Tracks(("react",), epochs=1, batch_size=64, rates=(1e-2, 1e-3), rounds=2)
    result = made(Subject("small", network, task))
    first, second = result.data["rows"]
    (row,) = result.table()
    assert (first["rate"], second["rate"]) == (1e-2, 1e-3)
    assert row["task"] == row["architecture"] == pytest.approx(first["clean"])
    assert row["corruption"] == pytest.approx(math.sqrt(sum(first[n] ** 2 for n in CORRUPTIONS) / 5))
    assert row["rates"] == pytest.approx(abs(first["clean"] - second["clean"]) / math.sqrt(2))
    assert row["inference"] > 0
    assert row["training"] > 0
    with pytest.raises(BadInput, match="nobody"):
        Tracks(("nobody",))(Subject("small", network, task))
    with pytest.raises(BadInput, match="subject"):
        Tracks()()


def test_tracks_put_tasks_together_by_their_quadratic_mean():
    same = {
        "training": 1.0,
        "smaller": 2.0,
        "fewer": 3.0,
        "inference": 4.0,
        **dict.fromkeys(CORRUPTIONS, 0.5),
    }
    row = lambda task, kind, clean, rate=0.1: {
        "operator": "bnn", "task": task, "architecture": kind, "clean": clean, "rate": rate, "recipe": rate == 0.1,
        **same,
    }  # fmt: skip
    rows = [row("a", "x", 1.0), row("a", "y", 0.6), row("b", "x", 0.4), row("a", "x", 0.2, rate=0.5)]
    scores = tracks("bnn", rows)
    assert scores["task"] == pytest.approx(math.sqrt((0.8**2 + 0.4**2) / 2))
    assert scores["architecture"] == pytest.approx(math.sqrt((0.7**2 + 0.6**2) / 2))
    assert overall([3.0, 4.0]) == pytest.approx(math.sqrt(12.5))
    others = [{**r, "operator": "react", "clean": 0.9} for r in rows]
    result = summary([*rows, *others])
    assert [r["operator"] for r in result.table()] == ["bnn", "react"]
    assert "react keeps most, 90.0 %" in result.sentence
    assert result.figures["task, bnn"] == scores["task"]
    assert len(result.plot().to_plotly_json()["data"]) == 3


def test_what_signs_save(trained):
    network, task = trained
    made = packed(learning(network, task, OPERATORS["bnn"], 0))
    weights = sum(p.numel() for p in network.parameters())
    saved = complexity(network, made, task)
    assert saved["smaller"] == pytest.approx(weights / (weights - 576 + 576 / 32))
    every = 64 * (9 * 8 + 9 * 64) + 16
    assert saved["fewer"] == pytest.approx(every / (every - 64 * 576 + 576))


def test_corruptions_are_what_they_say():
    x, generator = draw(4, 2, 6, 6), torch.Generator().manual_seed(0)
    made = {name: corrupt(x, generator) for name, corrupt in CORRUPTIONS.items()}
    assert made["brightness"].sub(x).sub(0.5 * x.std()).abs().max() < 1e-6
    assert made["noise"].sub(x).std() == pytest.approx(0.5 * float(x.std()), rel=0.15)
    shown = made["impulses"] != x
    assert set(made["impulses"][shown].tolist()) == {float(x.amin()), float(x.amax())}
    assert 0.01 < shown.float().mean() < 0.12
    torch.testing.assert_close(made["contrast"].mean((1, 2, 3)), x.mean((1, 2, 3)))
    torch.testing.assert_close(made["contrast"].std((1, 2, 3)), 0.5 * x.std((1, 2, 3)))
    torch.testing.assert_close(made["blur"][0, 1, 2, 3], x[0, 1, 1:4, 2:5].mean())
    torch.testing.assert_close(CORRUPTIONS["blur"](x[0], generator)[1, 2, 3], x[0, 1, 2, 2:5].mean())
    # at the border, of what is there
    torch.testing.assert_close(made["blur"][0, 1, 0, 5], x[0, 1, :2, 4:].mean())
    torch.testing.assert_close(CORRUPTIONS["blur"](x[0], generator)[1, 2, 0], x[0, 1, 2, :2].mean())
