from __future__ import annotations

import gc
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from netwright.core.errors import BadInput, NotApplicable
from netwright.core.split import ArraySplit, LoaderSplit
from netwright.core.taps import watching
from netwright.inspect.cka import Cka
from netwright.inspect.cka.hsic import Minibatch, u_centred


def split(count: int, *shape: int, seed: int = 0) -> ArraySplit:
    generator = torch.Generator().manual_seed(seed)
    return ArraySplit((torch.randn(count, *shape, generator=generator),), torch.zeros(count).long())


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 4, 5),
    ).eval()  # fmt: skip


def activations(network: nn.Module, x: Tensor, names: list[str]) -> list[Tensor]:
    """Copies, since the ReLU works in place."""
    kept: dict[str, Tensor] = {}
    with torch.no_grad(), watching(network, names, lambda n, v: kept.update({n: v.clone()})):
        network(x)
    return [kept[n].flatten(1).double() for n in names]


def formula(x: Tensor, y: Tensor) -> float:
    """Linear CKA as the paper writes it, on full activations in double precision."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float((y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


def hsic1(k: Tensor, m: Tensor) -> float:
    """The unbiased estimator term by term (Song et al. 2012, equation 5)."""
    n = k.shape[0]
    k, m = k - torch.diag(k.diagonal()), m - torch.diag(m.diagonal())
    one = torch.ones(n, dtype=k.dtype)
    total = torch.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((total - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))


NAMES = ["0", "1", "2", "4", "5", "6", "8"]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_exact_equals_the_formula_on_full_activations(network, kind) -> None:
    data = ArraySplit((split(300, 2, 8, 8).inputs[0].to(kind),), torch.zeros(300).long())
    network.to(kind)
    found = Cka(estimator="exact", batch_size=64)(network, data)
    assert found.data["rows"] == NAMES
    full = activations(network, data.inputs[0], NAMES)
    expected = [[formula(a, b) for b in full] for a in full]
    assert np.allclose(found.data["matrix"], expected, atol=1e-9)


def test_u_centred_product_is_the_unbiased_estimator() -> None:
    x, y = torch.randn(9, 5, dtype=torch.float64) + 3, torch.randn(9, 4, dtype=torch.float64)
    k, m = x @ x.T, y @ y.T
    found = (u_centred(k) * u_centred(m)).sum() / (9 * 6)
    assert float(found) == pytest.approx(hsic1(k, m), rel=1e-10)


def test_unbiased_estimator_has_no_bias() -> None:
    """Independent features of 4 examples: the mean over many groups is 0, as it is for no biased estimator."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40_000, 3, generator=generator)
    y = torch.randn(40_000, 3, generator=generator)
    estimate = Minibatch(4)
    estimate.start(2)
    estimate.see(0, x)
    estimate.see(1, y)
    estimate.close_batch()
    hsic = estimate.hsic()
    assert abs(float(hsic[0, 1] / (hsic[0, 0] * hsic[1, 1]).sqrt())) < 0.02


def test_minibatch_equals_the_direct_sum_over_groups(network) -> None:
    data = split(100, 2, 8, 8)
    found = Cka(estimator="minibatch", batch_size=40, group=16, seed=3)(network, data)
    batches = [x for x, _ in data.batches(40, shuffle=True, seed=3)]
    assert [len(b) for b in batches] == [40, 40, 20]
    total = np.zeros((len(NAMES),) * 2)
    for x in batches:
        full = activations(network, x, NAMES)
        for part in torch.arange(len(x)).split(16):
            if len(part) >= 4:
                grams = [f[part] @ f[part].T for f in full]
                total += len(part) * np.array([[hsic1(a, b) for b in grams] for a in grams])
    expected = total / np.sqrt(np.outer(total.diagonal(), total.diagonal()))
    assert np.allclose(found.data["matrix"], expected, atol=1e-5)


def test_minibatch_approaches_the_exact_value(network) -> None:
    data = split(4000, 2, 8, 8)
    exact = np.array(Cka(estimator="exact")(network, data).data["matrix"])
    for group in (8, 32):
        found = np.array(Cka(estimator="minibatch", group=group)(network, data).data["matrix"])
        # exact is biased upwards by features / examples
        assert np.abs(found - exact).max() < 0.04


class Linear(nn.Module):
    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.map = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        self.map.weight.data.copy_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)


@pytest.mark.parametrize("estimator", ["exact", "minibatch"])
def test_invariances(estimator) -> None:
    """Rotation, scale and shift change nothing; another linear map does."""
    data = split(500, 6)
    base = Linear(torch.randn(6, 6))
    rotation = torch.linalg.qr(torch.randn(6, 6)).Q
    rotated = Linear(7.5 * rotation @ base.map.weight.data)
    shifted = Linear(base.map.weight.data)
    shifted.map.bias = nn.Parameter(torch.full((6,), 20.0))
    squeezed = Linear(torch.diag(torch.tensor([30.0, 1, 1, 1, 1, 1])) @ base.map.weight.data)
    cka = Cka(estimator=estimator)
    value = lambda other: cka(base, data, other).data["matrix"][0][0]
    assert value(rotated) == pytest.approx(1.0, abs=1e-5)
    assert value(shifted) == pytest.approx(1.0, abs=1e-4)
    assert value(squeezed) < 0.9


def test_between_networks_is_the_block_of_both_together(network) -> None:
    data = split(200, 2, 8, 8)
    torch.manual_seed(5)
    other = nn.Sequential(nn.Flatten(), nn.Linear(128, 7), nn.ReLU())
    found = Cka(estimator="exact")(network, data, other)
    assert found.data["columns"] == ["1", "2"]
    full = activations(network, data.inputs[0], NAMES)
    theirs = activations(other, data.inputs[0], ["1", "2"])
    assert np.allclose(found.data["matrix"], [[formula(a, b) for b in theirs] for a in full], atol=1e-9)


def test_same_layers_are_found_again(network) -> None:
    found = Cka()(network, split(200, 2, 8, 8), network)
    assert found.figures["mean_of_same_layer"] == pytest.approx(1.0)
    assert found.figures["same_layer_is_most_alike"] == 1.0


def test_auto_takes_the_exact_way_for_small_layers(network) -> None:
    assert Cka()(nn.Linear(3, 4), split(50, 3)).data["estimator"] == "exact"
    assert Cka()(network, split(50, 2, 8, 8)).data["estimator"] == "exact"
    assert Cka()(nn.Conv2d(2, 32, 3), split(50, 2, 12, 12)).data["estimator"] == "minibatch"


def test_a_layer_that_never_changes_has_no_similarity() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) * 0 + 0.3)

    for estimator in ("exact", "minibatch"):
        found = Cka(estimator=estimator)(Dead(), split(100, 3))
        assert np.isnan(found.data["matrix"][0][1])
        assert found.data["matrix"][0][0] == pytest.approx(1.0)
        assert json.loads(json.dumps(found.to_json()))["data"]["matrix"][1][1] is None


def test_a_module_that_runs_twice_is_two_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.act = nn.Linear(4, 4), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.a(self.act(self.a(x))))

    found = Cka()(Twice(), split(100, 4))
    assert found.data["rows"] == ["a", "act", "a#2", "act#2"]


def held_bytes(network: nn.Module, data: ArraySplit) -> int:
    """Most bytes of tensors that are alive at the end of a batch, but for the data itself."""
    given = {t.untyped_storage().data_ptr() for t in (*data.inputs, data.targets)}
    most = 0
    original = Minibatch.close_batch

    def close(self: Minibatch) -> None:
        nonlocal most
        original(self)
        stores = {}
        for thing in gc.get_objects():
            # plain tensors only: tracing elsewhere leaves fake ones, which have no memory
            if type(thing) in (Tensor, nn.Parameter) and thing.untyped_storage().data_ptr() not in given:
                stores[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        most = max(most, sum(stores.values()))

    Minibatch.close_batch = close
    try:
        Cka(estimator="minibatch")(network, data)
    finally:
        Minibatch.close_batch = original
    return most


def test_memory_does_not_grow_with_the_data(network) -> None:
    small, large = held_bytes(network, split(512, 2, 8, 8)), held_bytes(network, split(2048, 2, 8, 8))
    # what grows is the shuffled order, 8 bytes an example; activations are some 4,000 bytes an example
    assert large - small < 20 * 1536


def test_the_network_keeps_its_mode_and_no_hook(network) -> None:
    network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    Cka()(network, split(50, 2, 8, 8))
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_sequences_several_inputs_and_samples() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.fc = nn.LSTM(3, 5, batch_first=True), nn.Linear(5 + 2, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.fc(torch.cat([self.lstm(a)[0][:, -1], b], 1))

    data = ArraySplit((torch.randn(60, 4, 3), torch.randn(60, 2)), torch.zeros(60).long())
    found = Cka(samples=40)(Two(), data)
    assert found.data["rows"] == ["lstm", "fc"]
    assert found.figures["examples"] == 40


class Sorted(Dataset):
    """Four classes, far apart, one after the other."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.y = torch.arange(4).repeat_interleave(64)
        self.x = torch.randn(4, 6, generator=generator)[self.y] * 3
        self.x += 0.3 * torch.randn(256, 6, generator=generator)

    def __len__(self) -> int:
        return 256

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]


class Stream(IterableDataset):
    def __len__(self) -> int:
        return 256

    def __iter__(self):
        return (Sorted()[i] for i in range(256))


def test_a_loader_that_is_sorted_by_class_is_shuffled() -> None:
    """Groups of one class see noise alone, so that the estimate in their order is far below the true one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 4)).eval()
    pairs = lambda found: found.figures["mean_of_pairs"]
    estimate = Cka(estimator="minibatch", batch_size=64)
    whole = Sorted()
    arrays = estimate(net, ArraySplit((whole.x,), whole.y))
    loader = LoaderSplit(DataLoader(whole, batch_size=64))
    found, again = estimate(net, loader), estimate(net, loader)
    assert found.data["order"] == arrays.data["order"] == "shuffled"
    assert found.data["matrix"] == again.data["matrix"]
    assert pairs(found) == pytest.approx(pairs(arrays), abs=0.01)
    stream = estimate(net, LoaderSplit(DataLoader(Stream(), batch_size=64)))
    assert stream.data["order"] == "as given"
    assert abs(pairs(stream) - pairs(arrays)) > 0.05


def test_refusals(network) -> None:
    with pytest.raises(BadInput, match="at least 4"):
        Cka(group=3)
    with pytest.raises(BadInput, match="at least 4 examples"):
        Cka(estimator="minibatch")(network, split(3, 2, 8, 8))

    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1)

    with pytest.raises(NotApplicable, match="no layer"):
        Cka()(Sum(), split(30, 4))


def test_table_and_plot(network) -> None:
    found = Cka()(network, split(60, 2, 8, 8))
    assert len(found.table()) == len(NAMES) ** 2
    assert set(found.table()[0]) == {"layer", "other", "cka"}
    assert "heatmap" in found.plot().to_json()


def test_the_finding_is_said_in_a_sentence(network) -> None:
    data = split(64, 2, 8, 8)
    within = Cka(layers=("0", "5", "8"))(network, data)
    steps = [r["cka"] for r in within.table() if (r["layer"], r["other"]) in (("0", "5"), ("5", "8"))]
    assert f"Neighbouring layers are alike to {sum(steps) / 2:.2f} " in within.sentence
    place = ("0", "5") if steps[0] < steps[1] else ("5", "8")
    assert f"from {place[0]} to {place[1]} ({min(steps):.2f})" in within.sentence
    same = Cka(layers=("0", "5"))(network, data, network)
    assert same.sentence.startswith("The same layer of the two networks is alike to 1.00")
    assert "100 % of the layers have their own place" in same.sentence
