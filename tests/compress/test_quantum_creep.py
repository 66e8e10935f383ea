"""The simulated circuits against matrices written out, the quanvolution against conv2d, and what each swap costs."""

from __future__ import annotations

import itertools
from functools import reduce

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import expm
from torch import nn

from netwright.compress.quantum_creep import LEVELS, QuantumCreep, creep
from netwright.compress.quantum_creep.layers import Constrained, QuantumLinear, Quanvolution, combined
from netwright.core.budget import within
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.network import parameter_count
from netwright.core.split import ArraySplit

ONE = [
    np.eye(2),
    np.array([[0, 1], [1, 0]]),
    np.array([[0, -1j], [1j, 0]]),
    np.array([[1, 0], [0, -1]]),
]


def written_out(angles: np.ndarray, qubits: int) -> np.ndarray:
    """The sum of Pauli strings, string by string."""
    strings = list(itertools.product(ONE, repeat=qubits))[1:]
    return sum(a * reduce(np.kron, string) for a, string in zip(angles, strings, strict=True))


@pytest.mark.parametrize("qubits", [1, 2, 3])
def test_pauli_strings_are_combined_as_if_written_out(qubits):
    angles = torch.randn(2, 4**qubits - 1, dtype=torch.float64)
    found = combined(angles, qubits)
    for row, matrix in zip(angles.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(matrix, written_out(row, qubits), atol=1e-12)
    assert combined(angles.float(), qubits).dtype == torch.complex64


SHAPES = [
    ((2, 3, 3), {}), ((3, 2, (2, 4)), {"stride": 2, "padding": 1}),
    ((1, 4, (3, 1)), {"padding": (2, 0), "stride": (1, 3)}),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "how"), SHAPES)
def test_a_quanvolution_is_a_convolution_with_the_derived_kernel(shape, how):
    layer = Quanvolution(nn.Conv2d(*shape, **how)).double()
    nn.init.normal_(layer.bias)
    x = torch.randn(2, shape[0], 7, 9, dtype=torch.float64)
    expected = layer.simulate(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(layer(x), expected)
    kernel = layer.kernel()
    torch.testing.assert_close(F.conv2d(x, kernel, layer.bias, **how), expected)
    # by hand, for one output: the state from matrices written out, the patch as an observable
    o, angles = 1, layer.angles.detach().numpy()
    padding, stride = (np.broadcast_to(how.get(key, d), 2) for key, d in (("padding", 0), ("stride", 1)))
    padded = np.pad(x[1].numpy(), ((0, 0), *((p, p) for p in padding)))
    total = layer.bias[o].item()
    for i in range(shape[0]):
        psi = expm(1j * written_out(angles[o, i], 2))[:, 0]
        h, w = layer.size
        patch = np.zeros((4, 4))
        patch[:h, :w] = padded[i, stride[0] : stride[0] + h, stride[1] : stride[1] + w]
        total += (psi.conj() @ ((patch + patch.T) / 2) @ psi).real / shape[0]
    assert expected[1, o, 1, 1].item() == pytest.approx(total)


def test_kernels_are_symmetric_positive_and_of_rank_two():
    for kind in (Quanvolution, Constrained):
        layer = kind(nn.Conv2d(3, 5, 4)).double()
        kernel = 3 * layer.kernel()
        torch.testing.assert_close(kernel, kernel.mT)
        values = torch.linalg.eigvalsh(kernel)
        assert values.min() > -1e-12
        assert values[..., :2].abs().max() < 1e-12
        torch.testing.assert_close(values.sum(-1), torch.ones(5, 3, dtype=torch.float64))
    assert Constrained(nn.Conv2d(3, 5, 4)).angles.shape == (5, 3, 8)
    held = Constrained(nn.Conv2d(2, 3, 3, 2, 1)).double()
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(held(x), held.simulate(x))
    with pytest.raises(BadInput, match="padding in numbers"):
        Quanvolution(nn.Conv2d(1, 1, 3, padding="same")).simulate(x[:, :1])


def test_the_linear_circuit_gate_by_gate():
    layer = QuantumLinear(nn.Linear(11, 3), steps=4).double()
    nn.init.normal_(layer.bias)
    assert layer.qubits == 2
    x = torch.randn(2, 3, 11, dtype=torch.float64)
    found = layer(x)
    assert found.shape == (2, 3, 3)
    data = np.zeros(16)
    data[:11] = x[1, 2].numpy()
    h = (data.reshape(4, 4) + data.reshape(4, 4).T) / 2
    psi = np.full(4, 0.5)
    for angles in layer.angles.detach().numpy():
        psi = expm(1j * written_out(angles, 2)) @ expm(1j * h / 4) @ psi
    assert np.abs(psi) @ np.abs(psi) == pytest.approx(1)
    np.testing.assert_allclose(
        found[1, 2].detach().numpy(), np.abs(psi[:3]) ** 2 + layer.bias.detach().numpy()
    )
    found.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in layer.parameters())
    for inner, outer, qubits in ((16, 4, 2), (17, 4, 3), (4, 5, 3), (3, 2, 1)):
        assert QuantumLinear(nn.Linear(inner, outer)).qubits == qubits
    assert QuantumLinear(nn.Linear(4, 2)).angles.shape == (10, 3)


class Plain(nn.Module):
    """The paper's network, smaller: no activation between its layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, 2)
        self.wide = nn.Conv2d(4, 4, 5, padding=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.wide(self.b(self.a(x))).mean((2, 3)))


def data(count=90):
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(count) % 3
    patterns = torch.randn(3, 1, 8, 8, generator=draw)
    return ArraySplit((patterns[y] + 0.3 * torch.randn(count, 1, 8, 8, generator=draw),), y)


def test_what_is_swapped_at_each_level():
    network = Plain()
    made = creep(network, (torch.randn(2, 1, 8, 8),), steps=3, seed=5)
    assert tuple(made) == LEVELS
    kinds = {level: [type(m).__name__ for m in net.children()] for level, net in made.items()}
    conv, quanv = "Conv2d", "Quanvolution"
    assert kinds["level 0"] == [conv, conv, conv, "Linear"]
    assert kinds["level 1"] == [quanv, quanv, conv, "Linear"]  # 5x5 is too large for two qubits
    assert kinds["constrained"] == ["Constrained", "Constrained", conv, "Linear"]
    assert kinds["level 2"] == [quanv, quanv, conv, "QuantumLinear"]
    assert made["level 2"].head.angles.shape == (3, 15)
    assert made["level 1"].b.stride == (2, 2)
    assert not any(layer.bias.any() for layer in (made["level 1"].a, made["level 2"].head))
    torch.testing.assert_close(made["level 1"].a.angles, made["level 2"].a.angles)
    assert not torch.equal(made["level 0"].a.weight, network.a.weight)
    assert (
        tuple(creep(nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1)), (torch.randn(2, 1, 8, 8),)))
        == LEVELS[:3]
    )


def test_of_several_linear_layers_the_last_is_swapped():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4), nn.Linear(4, 3))
    made = creep(network, (torch.randn(2, 1, 8, 8),), steps=2)["level 2"]
    assert [type(m).__name__ for m in made] == ["Quanvolution", "Flatten", "Linear", "QuantumLinear"]


def test_the_finding_says_what_each_swap_costs():
    found = QuantumCreep(epochs=4, steps=2)(Plain(), data())
    right = {row["level"]: row["accuracy"] for row in found.table()}
    assert found.data == {"trained on": 60, "judged by": 30}
    assert right["level 0"] > 0.5
    assert found.figures["lost at level 1"] == pytest.approx(right["level 0"] - right["level 1"])
    assert found.figures["lost at level 2"] == pytest.approx(right["level 0"] - right["level 2"])
    assert found.figures["lost by the constraint alone"] == pytest.approx(
        right["level 0"] - right["constrained"]
    )
    assert found.figures["parameters, level 0"] == parameter_count(Plain())
    assert [row["quanvolutions"] for row in found.table()] == [0, 2, 0, 2]
    assert [row["qubits"] for row in found.table()] == [0, 0, 0, 2]
    assert "in place of 2 convolutions" in found.sentence
    assert "2 qubits" in found.sentence
    assert f"({100 * right['level 0']:.1f} to {100 * right['level 1']:.1f} %)" in found.sentence


def test_what_it_refuses():
    method = QuantumCreep(epochs=1)
    with pytest.raises(NotApplicable, match="no convolution"):
        method(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), data())
    split = data()
    for wrong in (split.targets.float(), torch.eye(3)[split.targets]):
        with pytest.raises(NotApplicable, match="classes apart"):
            method(Plain(), ArraySplit(split.inputs, wrong))
    with pytest.raises(BadInput, match="cannot be divided"):
        method(Plain(), data(2))
    for conv in (nn.Conv2d(2, 2, 5), nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 2, 3, dilation=2),
                 nn.Conv2d(2, 2, 3, padding_mode="circular")):  # fmt: skip
        with pytest.raises(NotApplicable):
            Quanvolution(conv)


def test_no_time_left_still_gives_a_finding():
    with within(0.0):
        assert len(QuantumCreep()(Plain(), data()).table()) == 4
