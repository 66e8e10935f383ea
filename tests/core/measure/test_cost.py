"""Counts against hand formulas, torch's counter and a peer; memory against hand counts."""

import pytest
import torch
import torch_pruning
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from netwright.core.measure.cost import cost, macs, peak_activation_bytes, stored_bytes
from netwright.core.network import clone


class First(nn.Module):
    """The first of a layer's several results."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


CASES = {
    "linear over a sequence": (nn.Linear(8, 4), (1, 3, 8), 3 * 8 * 4),
    "convolution": (nn.Conv2d(3, 8, 5, stride=2), (1, 3, 11, 11), 8 * 3 * 25 * 16),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8, padding=1), (1, 8, 6, 6), 8 * 9 * 36),
    "grouped": (nn.Conv1d(8, 12, 3, groups=4), (1, 8, 10), 12 * 2 * 3 * 8),
    "transposed": (nn.ConvTranspose2d(8, 4, 3, groups=2), (1, 8, 6, 6), 8 * 36 * 2 * 9),
    "lstm, two layers, both ways": (
        First(nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)), (1, 5, 8),
        5 * 4 * 16 * 2 * ((8 + 16) + (32 + 16)),
    ),
    "gru": (First(nn.GRU(8, 16, batch_first=True)), (1, 5, 8), 5 * 3 * 16 * (8 + 16)),
    "transformer block": (
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (1, 5, 16),
        5 * 16 * 16 * 4 + 2 * 5 * 5 * 16 + 2 * 5 * 16 * 32,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_macs_equal_the_hand_formula(name: str) -> None:
    network, shape, expected = CASES[name]
    assert macs(network, torch.rand(shape)) == expected


def test_attention_by_hand() -> None:
    class Attend(nn.Module):
        def forward(self, q, k, v):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    q, k, v = torch.rand(1, 2, 7, 8), torch.rand(1, 2, 9, 8), torch.rand(1, 2, 9, 8)
    assert macs(Attend(), (q, k, v)) == 2 * (7 * 9 * 8 + 7 * 9 * 8)


def test_agrees_with_torch_and_torch_pruning() -> None:
    network, x = cnn().eval(), torch.rand(1, 3, 12, 12)
    found = cost(network, x)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x)
    assert found.macs == counter.get_total_flops() // 2
    peer_macs, peer_parameters = torch_pruning.utils.count_ops_and_params(network, x)
    assert found.parameters == peer_parameters
    # the peer also counts batch norm, biases, ReLU and pooling, a few per activation
    assert 0 <= peer_macs - found.macs <= 6 * (8 * 144 + 16 * 36 + 10)


def test_first_row_only_and_mode_kept() -> None:
    network = cnn().train()
    assert cost(network, torch.rand(5, 3, 12, 12)) == cost(network, torch.rand(1, 3, 12, 12))
    assert network.training
    assert network[1].num_batches_tracked == 0


def test_shared_weights_count_once() -> None:
    a, b = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
    b.weight = a.weight
    found = cost(nn.Sequential(a, b), torch.rand(1, 6))
    assert (found.parameters, found.bytes, found.macs) == (36, 144, 72)


def test_bytes_follow_the_type_and_what_is_saved(tmp_path) -> None:
    from safetensors.torch import save_file

    network = cnn()
    full = stored_bytes(network)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    assert 0 < (tmp_path / "a.safetensors").stat().st_size - full < 2000  # the file's header
    counters = 8  # num_batches_tracked is int64 in both
    assert stored_bytes(clone(network).half()) == (full - counters) // 2 + counters
    packed = nn.Module()
    packed.register_buffer("weight", torch.zeros(10, 10, dtype=torch.int8))
    assert stored_bytes(packed) == 100
    packed.register_buffer("part", torch.zeros(1000)[:10])
    assert stored_bytes(packed) == 140


def test_peak_activation_memory_by_hand() -> None:
    # 100 -> 50 -> 200 -> 10 floats; a layer's input lives while the layer runs, the network's input throughout
    chain = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 200), nn.Linear(200, 10))
    assert peak_activation_bytes(chain, torch.rand(1, 100)) == 4 * (100 + 50 + 200)
    inplace = nn.Sequential(nn.Linear(100, 50), nn.ReLU(inplace=True), nn.Linear(50, 10))
    assert peak_activation_bytes(inplace, torch.rand(1, 100)) == 4 * (100 + 50 + 10)
    outplace = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))
    assert peak_activation_bytes(outplace, torch.rand(1, 100)) == 4 * (100 + 50 + 50)


def test_a_skip_connection_holds_its_tensor() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(50, 400), nn.Linear(400, 50)

        def forward(self, x):
            y = torch.sigmoid(x)
            return y + self.b(self.a(y))

    # at the second layer: input 50, y 50, hidden 400, output 50
    assert peak_activation_bytes(Residual(), torch.rand(1, 50)) == 4 * (50 + 50 + 400 + 50)


def test_two_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Bilinear(8, 4, 3)

        def forward(self, a, b):
            return self.layer(a, b)

    assert cost(Two(), (torch.rand(2, 8), torch.rand(2, 4))).macs == 2 * 3 * 8 * 4
