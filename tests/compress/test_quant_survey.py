"""The survey's parts against brute force, closed forms and each other."""

import itertools
import math

import pytest
import torch
from tests.conformance.networks import subject
from torch import fx, nn

from netwright.compress.parts.int8_graph import attribute, functional
from netwright.compress.parts.moments import moments
from netwright.compress.parts.walk import Walk
from netwright.compress.parts.weights import size, weights
from netwright.compress.quant_survey import Ablation, QuantSurvey
from netwright.compress.quant_survey.mixed import allot, traces
from netwright.compress.quant_survey.rounding import AdaRound
from netwright.compress.quant_survey.synthetic import synthetic
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.metrics import evaluate
from netwright.core.network import as_tuple
from netwright.core.task import Task
from netwright.core.weights.bits import PackedBits
from netwright.core.weights.grids import Uniform
from netwright.core.weights.parametrise import Quantiser
from netwright.core.weights.ranges import LeastSquares


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_node(layer: nn.Module, x: torch.Tensor) -> fx.Node:
    module = functional(nn.Sequential(layer), x)
    return next(node for weight in weights(module) for node in weight.layers)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (5, 4, 9, 9)),
        (nn.Conv2d(4, 6, 3, groups=2, dilation=2, bias=False), (3, 4, 7, 7)),
        (nn.Conv1d(4, 4, 3, groups=4), (70, 4, 8)),
        (nn.Linear(5, 6), (4, 3, 5)),
    ],
    ids=str,
)
@pytest.mark.parametrize("centred", [False, True])
def test_second_moments_give_the_squared_error_of_any_weight(layer, shape, centred) -> None:
    x = draw(*shape) + 1
    given = x + 0.1 * draw(*shape, seed=1)
    channel = -1 if isinstance(layer, nn.Linear) else 1
    plain = lambda w, x: torch.func.functional_call(layer, {"weight": w}, (x,))
    rows = lambda y: y.movedim(channel, -1).flatten(0, -2)
    bias = 0 if layer.bias is None else layer.bias.detach()
    weight = layer.weight.detach()
    wanted = plain(weight, x).detach()
    shown = (
        (rows(wanted) - bias)
        .view_as(rows(wanted))
        .reshape(*wanted.movedim(channel, -1).shape)
        .movedim(-1, channel)
    )
    seen = moments(layer_node(layer, x), given, shown, weight, centred)
    for seed in (2, 3):
        other = weight + 0.1 * draw(*weight.shape, seed=seed)
        error = rows(wanted) - rows(plain(other, given).detach())
        error = error - error.mean(0) if centred else error
        true = rows(wanted) - (rows(wanted).mean(0) if centred else bias)
        expected = error.pow(2).mean(0) - true.pow(2).mean(0)
        assert torch.allclose(seen.error(other), expected, rtol=1e-3, atol=1e-4)


def test_learned_rounding_comes_near_the_best_of_all_ways_to_round() -> None:
    layer = nn.Linear(8, 3, bias=False)
    weight, x = draw(3, 8), draw(300, 8) @ draw(8, 8, seed=1) + 2  # inputs that depend on each other
    grid = Uniform(2, full=True)
    quantiser = Quantiser(grid, LeastSquares())
    seen = moments(layer_node(layer, x), x, x @ weight.t(), weight, centred=False)
    twin, base = quantiser.to_integer(weight), seen.error(weight)
    down = (weight / twin.scale).floor()
    ways = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)))
    best = torch.stack([seen.error((down + up).clamp(-2, 1) * twin.scale) for up in ways]).amin(0) - base
    found = seen.error(AdaRound()(weight, quantiser, seen, math.inf).values()) - base
    nearest = seen.error(twin.values()) - base
    assert (found <= nearest + 1e-4).all()
    assert found.sum() < 0.6 * nearest.sum()
    assert found.sum() < 1.05 * best.sum()


def test_no_time_means_the_nearest() -> None:
    x, weight = draw(50, 8), draw(3, 8)
    layer, quantiser = nn.Linear(8, 3, bias=False), Quantiser(Uniform(3))
    seen = moments(layer_node(layer, x), x, x @ weight.t(), weight, centred=False)
    assert torch.equal(AdaRound()(weight, quantiser, seen, -1.0).codes, quantiser.to_integer(weight).codes)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).pow(2).sum() / (b - b.mean(0)).pow(2).sum())


def test_biases_make_up_for_each_channels_mean_error() -> None:
    network, task = subject("residual")
    inputs = task.example(64)
    module = functional(network, inputs)
    quantisers = {w.path: Quantiser(Uniform(3)) for w in weights(module)}
    found = Walk(module, quantisers, None, correct=True)(inputs)
    plain = Walk(module, quantisers, None, correct=False)(inputs)
    assert not plain.biases
    stem = weights(module)[0]
    (node,), settings = stem.layers, stem.layers[0].args[3:]
    weight, bias = attribute(module, stem.path), attribute(module, node.args[2].target)
    wanted = torch.conv2d(inputs[0], weight, bias, *settings)
    rounded = torch.conv2d(inputs[0], found.rounded[stem.path].values, found.biases[node.name], *settings)
    assert torch.allclose(wanted.mean((0, 2, 3)), rounded.mean((0, 2, 3)), atol=1e-5)
    assert not torch.allclose(found.biases[node.name], bias, atol=1e-3)


@pytest.mark.parametrize("name", ["residual", "lstm"])
def test_packed_network_is_the_simulated_one_to_the_bit(name) -> None:
    network, task = subject(name)
    method = QuantSurvey(bits=3, group=16, symmetric=name != "lstm", steps=10, examples=16)
    twin, made = method.pair(network, task, Budget())
    inputs = as_tuple(task.example(16))
    assert torch.equal(made(*inputs), twin(*inputs))
    held = [m for m in made.modules() if isinstance(m, PackedBits)]
    found = weights(functional(network, task.example(2)))
    assert len(held) == len(found)
    sizes = [
        size(w.shape, method.quantiser(b)) for w, b in zip(found, method.uniform(found).values(), strict=True)
    ]
    assert sorted(m.nbytes for m in held) == sorted(sizes)
    bits = [m.bits for m in held]
    assert bits.count(8) == (1 if name == "lstm" else 2)
    assert set(bits) == {3, 8}


def outputs(network: nn.Module, task: Task) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(*as_tuple(task.example(96)))


def apart() -> tuple[nn.Module, Task]:
    """A network whose channels have very different ranges, and that computes what it did before."""
    network, task = subject("bare")
    factor = torch.logspace(-1, 1, 8)
    with torch.no_grad():
        network.conv1.weight *= factor.view(-1, 1, 1, 1)
        network.conv1.bias *= factor
        network.conv2.weight /= factor.view(1, -1, 1, 1)
    return network, task


def test_training_on_repairs_two_bits() -> None:
    network, task = subject("bare")
    settings = {"bits": 2, "ends": 2, "scheme": "channel"}
    before = QuantSurvey(**settings, rounding="nearest", correct=False)(network, task, Budget())
    twin, after = QuantSurvey(**settings, rounding="lsq", epochs=4, lr=3e-3).pair(network, task, Budget())
    loss = lambda n: evaluate(n, task, "val")["nll"]
    assert loss(after) < 0.7 * loss(before)
    assert torch.equal(outputs(after, task), outputs(twin, task))
    used = {m.bits for m in after.modules() if isinstance(m, PackedBits)}
    assert used == {2}


def test_traces_are_those_of_the_hessian() -> None:
    x, y = draw(60, 5), torch.arange(60) % 3
    task = Task.from_arrays(x, y, val=(x, y), test=(x, y), name="rows")
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    module = functional(net, x)
    paths = [w.path for w in weights(module)]
    found = traces(module, paths, task, [(x, y)] * 200, 0, Budget().start())

    def loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(x @ first.t() + net[0].bias)
        return task.loss(hidden @ second.t() + net[2].bias, y)

    held = (net[0].weight.detach(), net[2].weight.detach())
    hessian = torch.autograd.functional.hessian(loss, held)
    for i, path in enumerate(paths):
        block = hessian[i][i].reshape(held[i].numel(), -1)
        assert found[path] == pytest.approx(block.trace().item(), rel=0.15)
    assert not any(p.requires_grad for p in module.parameters())
    short = Budget(samples=1).start()
    traces(module, paths, task, [(x, y)] * 200, 0, short)
    assert short.samples == 180


def test_bits_are_allotted_as_by_trying_everything() -> None:
    generator = torch.Generator().manual_seed(0)
    bits = (2, 3, 4, 8)
    for _ in range(5):
        costs = {
            p: dict(zip(bits, sorted(torch.rand(4, generator=generator).tolist())[::-1], strict=True))
            for p in "abcd"
        }
        sizes = {p: {b: b * (i + 1) for b in bits} for i, p in enumerate("abcd")}
        found = allot(costs, sizes, 40)
        assert sum(sizes[p][b] for p, b in found.items()) <= 40
        total = lambda choice, costs=costs: sum(costs[p][b] for p, b in zip("abcd", choice, strict=True))
        fits = lambda choice, sizes=sizes: sum(sizes[p][b] for p, b in zip("abcd", choice, strict=True)) <= 40
        best = min(total(c) for c in itertools.product(bits, repeat=4) if fits(c))
        assert total(found.values()) == pytest.approx(best)
    with pytest.raises(BadInput, match="bytes"):
        allot(costs, sizes, 19)


def test_mixed_precision_keeps_to_the_bytes_of_uniform() -> None:
    network, task = subject("residual")
    uniform = QuantSurvey(bits=3, ends=3, scheme="channel", rounding="nearest")
    mixed = QuantSurvey(bits=3, ends=3, scheme="channel", rounding="nearest", mixed=True)
    held = lambda n: sum(m.nbytes for m in n.modules() if isinstance(m, PackedBits))
    same, other = uniform(network, task, Budget()), mixed(network, task, Budget())
    assert held(other) <= held(same)
    assert len({m.bits for m in other.modules() if isinstance(m, PackedBits)}) > 1
    assert relative(outputs(other, task), outputs(network, task)) < relative(
        outputs(same, task), outputs(network, task)
    )


def test_made_up_inputs_have_the_statistics_that_batch_norms_hold() -> None:
    network, task = subject("residual")
    (x,) = synthetic(network, task.input_shapes, 32, 0, Budget().start(), steps=60)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    def distance(inputs: torch.Tensor) -> float:
        seen: list[torch.Tensor] = []
        handles = [
            n.register_forward_hook(
                lambda m, a, _: seen.append((a[0].mean((0, 2, 3)) - m.running_mean).pow(2).sum())
            )
            for n in norms
        ]
        network(inputs)
        for handle in handles:
            handle.remove()
        return torch.stack(seen).sum().item()

    assert distance(x) < 0.2 * distance(draw(32, *task.input_shape))
    assert torch.equal(x, synthetic(network, task.input_shapes, 32, 0, Budget().start(), steps=60)[0])
    with pytest.raises(NotApplicable, match="batch norm"):
        synthetic(subject("bare")[0], task.input_shapes, 4, 0, Budget().start())
    with pytest.raises(NotApplicable, match="one input"):
        synthetic(subject("two-inputs")[0], ((2, 8, 8), (4,)), 4, 0, Budget().start())


def test_the_table_ranks_the_settings() -> None:
    network, task = apart()
    found = Ablation(bits=(8, 4), group=9, examples=32, steps=50)(network, task.val)
    table = {(row["bits"], row["setting"]): row for row in found.table()}
    assert len(table) == 26
    at = lambda name: table[4, name]["error"]
    assert at("channel, least squares, AdaRound") < 0.7 * at("channel, least squares") < at("tensor, min-max")
    assert at("group, least squares, AdaRound") < at("group, least squares") < at("channel, least squares")
    assert at("tensor, min-max, equalised") < 0.2 * at("tensor, min-max")
    assert at("codebook, channel") < at("channel, least squares")
    assert at("channel, percentile") == at("channel, min-max")  # too few weights to leave any out
    assert table[8, "channel, min-max"]["error"] < 0.02
    assert table[8, "channel, min-max"]["same"] > 0.9
    assert 1.9 < table[8, "channel, min-max"]["bytes"] / table[4, "channel, min-max"]["bytes"] < 2
    best = min((row for key, row in table.items() if key[0] == 4), key=lambda row: row["error"])
    assert f"at 4 bits {best['setting']}" in found.sentence
    assert found.figures["error, channel, min-max, 4 bits"] == at("channel, min-max")
    assert len(found.plot().data) == 13


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"bits": 1}, "2 to 8"), ({"range": "odd"}, "range"), ({"scheme": "row"}, "scheme"),
        ({"grid": "log"}, "grid"), ({"grid": "powers"}, "nearest"), ({"data": "synthetic", "mixed": True}, "made-up"),
        ({"grid": "powers", "rounding": "nearest", "mixed": True}, "mixed"), ({"data": "test"}, "data"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(settings, word) -> None:
    network, task = subject("bare")
    with pytest.raises(BadInput, match=word):
        QuantSurvey(**settings)(network, task, Budget())


def test_a_network_without_weights_is_refused() -> None:
    _, task = subject("bare")
    with pytest.raises(NotApplicable, match="quantise"):
        QuantSurvey()(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(128)).eval(), task, Budget())
