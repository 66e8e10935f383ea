"""Grids against brute force, gradients against their rule, the integer twin against the float one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from netwright.core.errors import BadInput
from netwright.core.weights.grids import Binary, Codebook, PowerOfTwo, Ternary, Uniform
from netwright.core.weights.parametrise import LowRank, LowRankChange, Mask, Quantiser, bake
from netwright.core.weights.ranges import LeastSquares, Percentile, minmax

GRIDS = [
    Uniform(8), Uniform(3), Uniform(4, symmetric=False), PowerOfTwo(4), Codebook(3), Binary(), Ternary(),
]  # fmt: skip


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("channel", [None, 0, 1])
def test_float_equals_integer_twin(grid, channel) -> None:
    w = weights(6, 5, 3, 3)
    quantiser = Quantiser(grid, channel=channel)
    found, twin = quantiser(w), quantiser.to_integer(w)
    rows = twin.values()
    back = (
        rows.view(w.shape) if channel is None else rows.view(w.movedim(channel, 0).shape).movedim(0, channel)
    )
    assert torch.equal(found, back)
    assert not twin.codes.is_floating_point()
    assert len(twin.scale) == (1 if channel is None else w.shape[channel])


@given(st.integers(2, 8), st.booleans(), st.integers(0, 1000))
def test_uniform_rounds_to_the_nearest_value_of_its_grid(bits, symmetric, seed) -> None:
    grid = Uniform(bits, symmetric)
    w = weights(3, 40, seed=seed).double()
    twin = grid.quantise(w, minmax)
    for row in range(3):
        every = (torch.arange(grid.lowest, grid.highest + 1) - twin.zero[row]) * twin.scale[row]
        best = (w[row, :, None] - every).abs().min(1).values
        assert torch.allclose((twin.values()[row] - w[row]).abs(), best, atol=1e-9)
        assert 0 in every  # padding must stay exact
    assert twin.codes.min() >= grid.lowest
    assert twin.codes.max() <= grid.highest


def test_least_squares_beats_minmax_and_matches_a_brute_force() -> None:
    w = weights(4, 500).double()
    w[:, 0] = 12.0  # an outlier
    grid, error = Uniform(4), lambda twin: (twin.values() - w).pow(2).sum(1)
    best = error(grid.quantise(w, LeastSquares()))
    assert (best < 0.9 * error(grid.quantise(w, minmax))).all()
    top = w.abs().amax(1)
    brute = torch.stack([
        error(grid.quantise(w, lambda r, e, f=f: (-top * f, top * f))) for f in torch.linspace(0.2, 1, 400).tolist()
    ]).amin(0)  # fmt: skip
    assert (best <= brute * 1.05).all()


def test_percentile_leaves_out_the_tails() -> None:
    rows = torch.arange(1000.0)[torch.randperm(1000)][None]
    low, high = Percentile(98)(rows, None)
    assert (low.item(), high.item()) == (10, 989)


def test_codebook_is_a_fixed_point_of_lloyd_and_beats_uniform() -> None:
    w = weights(2, 400).double()
    twin = Codebook(3, iterations=100).quantise(w, minmax)
    for row in range(2):
        for code in twin.codes[row].unique():
            members = w[row, twin.codes[row] == code]
            assert torch.allclose(twin.levels[row, code], members.mean(), atol=1e-6)
    assert (twin.values() - w).pow(2).sum() < (Uniform(3).quantise(w, minmax).values() - w).pow(2).sum()


def test_power_of_two_binary_ternary_by_hand() -> None:
    w = torch.tensor([[1.1, -0.5, 0.3, 0.0, -0.05]])
    assert PowerOfTwo(4).quantise(w, minmax).values().tolist() == [[1.0, -0.5, 0.25, 0.0, -0.0625]]
    assert torch.allclose(Binary().quantise(w, minmax).values(), torch.tensor([[1, -1, 1, 1, -1]]) * 0.39)
    # mean |w| = 0.39, threshold 0.273: 1.1, 0.5 and 0.3 stay, their mean is 0.6333
    assert torch.allclose(
        Ternary().quantise(w, minmax).values(), torch.tensor([[1, -1, 1, 0, 0]]) * (1.9 / 3)
    )


def test_gradients() -> None:
    w = weights(3, 200).requires_grad_()
    Quantiser(Uniform(4))(w).sum().backward()
    assert (w.grad == 1).all()
    w.grad = None
    Quantiser(Uniform(4), Percentile(90), "clipped")(w).sum().backward()
    assert 0.85 < w.grad.mean() < 0.95  # the outer tenth is stopped
    assert ((w.grad == 0) | (w.grad == 1)).all()


def test_learned_scale_has_the_papers_gradient() -> None:
    w = weights(3, 50).double().requires_grad_()
    quantiser = Quantiser(Uniform(3), Percentile(80), "lsq").double()
    quantiser.start(w)
    out, upstream = quantiser(w), weights(3, 50, seed=1).double()
    (out * upstream).sum().backward()
    s = quantiser.learned.detach()
    v = w.detach() / s
    slope = torch.where(v < -3, -3.0, torch.where(v > 3, 3.0, v.round() - v))  # LSQ, equation 3
    expected = (slope * upstream).sum(1, keepdim=True) / (50 * 3) ** 0.5
    assert torch.allclose(quantiser.learned.grad, expected)
    assert torch.allclose(w.grad, upstream * (v.abs() <= 3))
    assert torch.equal(out.detach(), v.round().clamp(-3, 3) * s)


def test_learned_clip_has_the_papers_gradient() -> None:
    x = weights(1, 200).double().requires_grad_()
    quantiser = Quantiser(
        Uniform(4, symmetric=False), lambda r, _: (0 * r.amin(1), r.amax(1) / 2), "pact", None
    )
    quantiser.start(x)
    alpha = quantiser.learned.item()
    assert alpha == pytest.approx(x.max().item() / 2)
    out = quantiser(x)
    out.sum().backward()
    assert quantiser.learned.grad.item() == pytest.approx((x >= alpha).sum().item())  # PACT, equation 3
    assert torch.allclose(x.grad, ((x > 0) & (x < alpha)).double())
    step = alpha / 15
    assert torch.allclose(out.detach(), (x.detach().clamp(0, alpha) / step).round() * step)


def test_what_is_learned_stays_equal_to_its_integers() -> None:
    for gradient in ("lsq", "pact"):
        grid = Uniform(4, full=gradient == "lsq", half=True)
        layer = nn.Conv2d(3, 6, 3)
        quantiser = Quantiser(grid, LeastSquares(), gradient, group=9)
        parametrize.register_parametrization(layer, "weight", quantiser)
        optimiser = torch.optim.Adam(layer.parameters(), 1e-3)
        for _ in range(5):
            layer(torch.rand(2, 3, 6, 6)).pow(2).sum().backward()
            optimiser.step()
        twin = quantiser.to_integer(layer.parametrizations.weight.original)
        assert torch.equal(quantiser.unrows(twin.values(), layer.weight), layer.weight)
        assert torch.equal(twin.scale, twin.scale.half().float())
        before = Quantiser(grid, LeastSquares(), group=9).to_integer(layer.parametrizations.weight.original)
        assert not torch.equal(before.scale, twin.scale)
    with pytest.raises(BadInput, match="uniform"):
        Quantiser(Codebook(3), gradient="lsq")


def test_groups_have_a_scale_each_and_the_last_is_filled_up() -> None:
    w = weights(4, 3, 3, 3)
    quantiser = Quantiser(Uniform(4), group=10)
    rows = quantiser.rows(w)
    assert rows.shape == (12, 10)
    assert torch.equal(rows[1], w[0].flatten()[10:20])
    assert torch.equal(rows[2], torch.cat([w[0].flatten()[20:], torch.zeros(3)]))
    assert torch.equal(quantiser.unrows(rows, w), w)
    expected = torch.cat(
        [Uniform(4).quantise(w.flatten(1)[:, i : i + 10], minmax).values() for i in (0, 10, 20)], 1
    )
    assert torch.equal(quantiser(w).flatten(1), expected)
    assert Quantiser(Uniform(4), group=100).rows(w).shape == (4, 27)
    with pytest.raises(BadInput, match="groups"):
        Quantiser(Uniform(4), channel=None, group=8)


@given(st.integers(2, 8), st.integers(0, 1000))
def test_full_symmetric_grids_reach_the_larger_end_with_the_lowest_code(bits, seed) -> None:
    w = weights(2, 30, seed=seed)
    twin = Uniform(bits, full=True, half=True).quantise(w, minmax)
    assert torch.equal(twin.scale, twin.scale.half().float())
    assert twin.codes.amin() >= -(2 ** (bits - 1))
    assert twin.codes.amax() <= 2 ** (bits - 1) - 1
    for row in range(2):
        end = w[row].abs().argmax()
        assert twin.codes[row, end] == -(2 ** (bits - 1))
        assert twin.values()[row, end].item() == pytest.approx(w[row, end].item(), rel=2e-3)


def test_scales_too_small_or_large_for_half_precision_do_no_harm() -> None:
    grid = Uniform(4, half=True)
    tiny = torch.tensor([[1e-9, -2e-9, 0.0]])
    assert (grid.quantise(tiny, minmax).values() - tiny).abs().max() < 1e-6
    large = torch.tensor([[1e7, -2e7, 0.0]])
    assert grid.quantise(large, minmax).scale.item() == 65504


def test_bake_gives_plain_tensors_with_the_same_outputs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(96, 8), weight_norm(nn.Linear(8, 8)))
    parametrize.register_parametrization(net[0], "weight", Quantiser(Uniform(4)))
    parametrize.register_parametrization(net[2], "weight", Mask((weights(8, 96) > 0).float()))
    parametrize.register_parametrization(net[2], "bias", Quantiser(Binary(), channel=None))
    x = torch.rand(2, 3, 6, 6)
    baked = bake(net)
    assert torch.equal(baked(x), net(x))
    assert set(baked.state_dict()) == {f"{i}.{n}" for i in (0, 2, 3) for n in ("weight", "bias")}
    assert parametrize.is_parametrized(net[0])  # the given network is as it was
    assert baked[0].weight[0].unique().numel() <= 15


def test_low_rank_starts_at_the_best_approximation_and_learns_its_factors() -> None:
    layer = nn.Conv2d(8, 10, 3)
    w = layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", LowRank(4, w.shape))
    s = torch.linalg.svdvals(w.flatten(1))
    assert torch.allclose((layer.weight - w).norm(), s[4:].norm(), rtol=1e-4)
    assert sum(p.numel() for p in layer.parametrizations.parameters()) == 4 * (10 + 72)
    layer(torch.rand(1, 8, 5, 5)).sum().backward()
    assert all(p.grad is not None for p in layer.parametrizations.parameters())


def test_a_change_of_low_rank_starts_at_nothing_and_is_merged() -> None:
    layer = nn.Conv2d(8, 10, 3)
    w = layer.weight.detach().clone()
    layer.requires_grad_(False)
    change = LowRankChange(2, w.shape)
    parametrize.register_parametrization(layer, "weight", change)
    assert torch.equal(layer.weight, w)
    layer(torch.rand(1, 8, 5, 5)).sum().backward()
    assert change.left.grad.any()
    with torch.no_grad():
        change.left.normal_()
    merged = bake(layer).weight - w
    torch.testing.assert_close(merged.flatten(1), 2 * change.left @ change.right)
    assert torch.linalg.matrix_rank(merged.flatten(1), rtol=1e-4) == 2


def test_a_constant_tensor_does_not_divide_by_zero() -> None:
    for grid in GRIDS:
        assert torch.equal(Quantiser(grid)(torch.zeros(2, 30)), torch.zeros(2, 30))
    with pytest.raises(BadInput, match="bits"):
        Uniform(1)
