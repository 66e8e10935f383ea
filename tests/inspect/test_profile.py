from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from netwright.core.errors import NotApplicable
from netwright.core.measure.cost import cost
from netwright.core.split import ArraySplit
from netwright.core.taps import watching
from netwright.inspect.parts.moments import Moments, effective_rank, participation
from netwright.inspect.profile import Profile
from netwright.inspect.profile.weights import followers


def split(count: int, *shape: int) -> ArraySplit:
    return ArraySplit((torch.randn(count, *shape) + 0.5,), torch.zeros(count).long())


def row(found, layer: str) -> dict:
    return next(r for r in found.table() if r["layer"] == layer)


@pytest.fixture
def network() -> nn.Module:
    """Unit 3 of the convolution is dead behind the ReLU, unit 2 is twice unit 0."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 16, 3)).eval()
    with torch.no_grad():
        net[0].weight[2] = 2 * net[0].weight[0]
        net[0].bias[2] = 2 * net[0].bias[0]
        net[0].bias[3] = -100
    return net


def test_activation_figures_equal_those_of_all_activations(network) -> None:
    data = split(200, 2, 6, 6)
    found = Profile(batch_size=32)(network, data)
    seen: dict[str, Tensor] = {}
    with torch.no_grad(), watching(network, ["0", "1", "3"], lambda n, v: seen.update({n: v.clone()})):
        network(data.inputs[0])
    for place in ("0", "1", "3"):
        value = seen[place].double()
        units = value.movedim(1, -1).reshape(-1, value.shape[1])
        got = row(found, place)
        assert got["mean"] == pytest.approx(value.mean().item(), rel=1e-5)
        assert got["std"] == pytest.approx(value.std(correction=0).item(), rel=1e-5)
        assert got["zeros"] == pytest.approx((value == 0).double().mean().item())
        spectrum = torch.linalg.eigvalsh(torch.cov(units.T, correction=0)).clamp_min(0)
        p = spectrum / spectrum.sum()
        assert got["participation"] * len(p) == pytest.approx(1 / float((p**2).sum()), rel=1e-4)
        entropy = float(-(p[p > 0] * p[p > 0].log()).sum())
        assert got["effective_rank"] * len(p) == pytest.approx(math.exp(entropy), rel=1e-3)


def test_planted_faults_are_found(network) -> None:
    found = Profile()(network, split(100, 2, 6, 6))
    assert row(found, "0")["dead"] == 0
    assert row(found, "1")["dead"] == 0.25
    assert row(found, "0")["duplicate_units"] == pytest.approx(0.25)
    assert row(found, "1")["duplicate_units"] == pytest.approx(0.25)
    assert row(found, "0")["duplicate_filters"] == 0.25
    assert row(found, "3")["duplicate_filters"] == 0


def test_macs_and_parameters_add_up(network) -> None:
    found = Profile()(network, split(20, 2, 6, 6))
    whole = cost(network, torch.zeros(1, 2, 6, 6))
    assert found.figures["macs"] == whole.macs == sum(r["macs"] for r in found.table())
    assert (
        found.figures["parameters"] == whole.parameters == sum(r.get("parameters", 0) for r in found.table())
    )
    assert row(found, "0")["macs"] == 4 * 2 * 9 * 16


def test_without_data_the_weights_speak(network) -> None:
    with torch.no_grad():
        network[3].weight.zero_()
        network[3].weight[:, 0] = 1.0
    found = Profile()(network)
    assert [r["layer"] for r in found.table()] == ["0", "3"]
    last = row(found, "3")
    assert last["weight_rank"] == pytest.approx(1 / 3, abs=1e-6)
    assert last["weight_zeros"] == pytest.approx(3 * 63 / (3 * 64 + 3))
    assert last["duplicate_filters"] == pytest.approx(2 / 3)
    held = network[0].weight.detach().double().pow(2).sum() + network[0].bias.detach().double().pow(2).sum()
    assert row(found, "0")["weight_norm"] == pytest.approx(float(held.sqrt()))


def test_rows_compared_in_blocks_are_those_compared_at_once() -> None:
    rows = torch.randn(300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[40] = 0
    rows[200] = 0
    rows[[7, 123, 299]] = -2 * rows[[3, 3, 250]]
    unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
    for duplicate in (0.95, 0.999999):
        dense = int(((unit @ unit.T).abs().triu(1) >= duplicate).any(0).sum())
        assert dense >= 3
        for block in (1, 7, 64, 300, 1000):
            assert followers(rows, duplicate, block) == dense


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that any operation gives."""

    most = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.most = max(self.most, result.nbytes)
        return result


def test_memory_stays_with_the_size_of_the_weights() -> None:
    with LargestTensor() as largest:
        assert followers(torch.randn(6000, 4, dtype=torch.float64), 2.0) == 0
    assert largest.most <= 8 * 1024**2
    table = nn.Embedding(6000, 8)
    with LargestTensor() as largest:
        found = Profile()(table)
    assert "duplicate_filters" not in found.table()[0]
    assert found.table()[0]["weight_rank"] > 0.9
    assert largest.most <= 2 * 8 * table.weight.numel()


def test_ranks_of_known_spectra() -> None:
    assert participation(torch.tensor([1.0, 1.0, 1.0, 0.0])) == pytest.approx(3)
    assert effective_rank(torch.tensor([1.0, 1.0, 1.0, 0.0])) == pytest.approx(3)
    assert participation(torch.tensor([3.0, 1.0])) == pytest.approx(1.6)
    assert effective_rank(torch.tensor([3.0, 1.0])) == pytest.approx(4 / 3**0.75)
    assert participation(torch.zeros(3)) == effective_rank(torch.zeros(3)) == 0


def test_streamed_moments_are_those_of_the_whole_far_from_zero() -> None:
    x = torch.randn(1000, 5) * torch.tensor([1.0, 2, 3, 4, 5]) + 3000
    moments = Moments(5, 100)
    for part in x.split(64):
        moments.see(part)
    assert torch.allclose(moments.mean, x.double().mean(0), rtol=1e-9)
    assert torch.allclose(moments.covariance, torch.cov(x.double().T, correction=0), rtol=1e-4, atol=1e-3)


def test_wide_layers_are_sampled() -> None:
    moments = Moments(50, 8, seed=1)
    moments.see(torch.randn(100, 50))
    assert moments.covariance.shape == (8, 8)
    assert moments.figures(0.95)["units"] == 50


def test_sequences_have_their_units_last() -> None:
    torch.manual_seed(0)
    recurrent = nn.Sequential(nn.Linear(3, 7), nn.GELU(), nn.LSTM(7, 5, batch_first=True))

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = recurrent, nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x)[0][:, -1])

    found = Profile()(Last(), split(40, 6, 3))
    assert [r["units"] for r in found.table()] == [7, 7, 5, 2]
    conv = nn.Sequential(nn.Conv1d(3, 7, 2), nn.ReLU(), nn.Flatten(), nn.Linear(7 * 5, 2))
    assert [r["units"] for r in Profile()(conv, split(40, 3, 6)).table()] == [7, 7, 2]


def test_refusal_plot_and_json(network) -> None:
    with pytest.raises(NotApplicable, match="no parameters"):
        Profile()(nn.ReLU())
    found = Profile(samples=10)(network, split(50, 2, 6, 6))
    assert found.figures["examples"] == 10
    json.dumps(found.to_json(), allow_nan=False)
    assert "participation" in found.plot().to_json()


def test_the_finding_is_said_in_a_sentence(network) -> None:
    found = Profile()(network, split(200, 2, 6, 6))
    assert found.sentence.startswith("271 parameters in 3 layers; 0 does 86 % of the multiply-accumulates; ")
    assert "9.1 % of the units never change and 18.2 % follow another one" in found.sentence, "1 and 2 of 11"
    assert found.to_json()["sentence"] == found.sentence
    assert repr(found) == f"Found(profile: {found.sentence})"
    assert "<table>" in found._repr_html_()
    without = Profile()(network)
    assert without.sentence == (
        "271 parameters in 2 layers; 12.5 % of the filters nearly repeat an earlier one."
    ), "one of four, and none of three: the mean over layers"
