"""Packed numbers against a string of bits, packed weights against their integer twins."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netwright.core.errors import BadInput
from netwright.core.files.export import export
from netwright.core.files.load import load
from netwright.core.measure.cost import stored_bytes
from netwright.core.weights.bits import PackedBits, fields, pack, unpack
from netwright.core.weights.grids import Binary, Codebook, PowerOfTwo, Uniform
from netwright.core.weights.parametrise import Quantiser
from netwright.core.weights.ranges import minmax


@given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 1000))
def test_codes_come_back_from_as_few_bytes_as_their_bits_need(bits, count, seed) -> None:
    codes = torch.randint(0, 2**bits, (count,), generator=torch.Generator().manual_seed(seed))
    parts = pack(codes, bits)
    assert torch.equal(unpack(parts, bits, count), codes.float())
    assert sum(len(p) for p in parts) == sum(math.ceil(count * w / 8) for w in (8, 4, 2, 1) if bits & w)
    assert all(p.dtype == torch.uint8 for p in parts)


def test_the_layout_is_that_of_numpys_packed_bits() -> None:
    codes = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4, 5])
    low, high = pack(codes, 3)  # two bits of each, then the third
    bits = np.stack([codes.numpy() & 1, codes.numpy() >> 1 & 1], 1).reshape(-1)
    assert low.tolist() == np.packbits(bits, bitorder="little").tolist()
    assert high.tolist() == np.packbits(codes.numpy() >> 2, bitorder="little").tolist()
    assert fields(3) == [(2, 0), (1, 2)]
    with pytest.raises(BadInput, match="bits"):
        fields(9)


GRIDS = [
    Uniform(4, full=True, half=True), Uniform(3, symmetric=False, half=True), Uniform(2, full=True), Uniform(8),
    Uniform(6, half=True), PowerOfTwo(4), Codebook(3),
]  # fmt: skip


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("channel", "group"), [(None, None), (0, None), (0, 16), (0, 7)])
def test_packed_weight_is_its_twin_to_the_bit(grid, channel, group) -> None:
    w = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    quantiser = Quantiser(grid, channel=channel, group=group)
    twin = quantiser.to_integer(w)
    layer = PackedBits(twin, grid.bits, w.shape)
    assert torch.equal(layer(), quantiser(w))
    assert layer.nbytes == stored_bytes(layer)
    codes = twin.codes.numel()
    scales = 1 if (twin.scale == twin.scale[0]).all() else len(twin.scale)
    scale = 2 * scales if torch.equal(twin.scale.half().float(), twin.scale) else 4 * scales
    zeros = [len(twin.scale)] if (twin.zero != 0).any() else []
    levels = 0
    if twin.levels is not None:
        books = len(twin.levels) if isinstance(grid, Codebook) and channel == 0 else 1
        levels = (
            books * twin.levels.shape[1] * (4 if isinstance(grid, Codebook) else 2)
        )  # powers of two are short
    kept = sum(math.ceil(n * width / 8) for n in [codes, *zeros] for width, _ in fields(grid.bits))
    assert layer.nbytes == kept + scale + levels
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(), layer())


def test_rows_that_share_their_values_hold_them_once() -> None:
    w = torch.randn(12, 30, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 13)[:, None]
    grid = Codebook(3, runs=(2, 7, 3))
    twin = grid.quantise(w, minmax)
    layer = PackedBits(twin, 3, w.shape)
    assert torch.equal(layer(), twin.values())
    assert (
        layer.nbytes == 12 * 30 * 3 / 8 + 3 * 8 * 2 + 3 * 4 + 2
    )  # codes, short values, numbers of rows, one scale
    for part, found in zip(w.split([2, 7, 3]), twin.levels.split([2, 7, 3]), strict=True):
        alone = Codebook(3).quantise(part.reshape(1, -1), minmax).levels
        assert torch.equal(found, alone.half().float().expand(len(part), -1))
    levels = twin.levels[:, None, :].expand(-1, 30, -1)
    assert torch.equal((w - layer()).abs(), (w[..., None] - levels).abs().amin(2))  # the nearest of them


def test_half_scales_are_kept_as_half() -> None:
    w = torch.randn(4, 64)
    layer = PackedBits(Quantiser(Uniform(4, half=True)).to_integer(w), 4, w.shape)
    assert layer.scale.dtype == torch.float16
    assert layer.nbytes == 4 * 64 // 2 + 4 * 2
    assert PackedBits(Quantiser(Uniform(4)).to_integer(w), 4, w.shape).scale.dtype == torch.float32


def test_codes_that_need_more_bits_are_refused() -> None:
    w = torch.randn(4, 8)
    with pytest.raises(BadInput, match="more than 3 bits"):
        PackedBits(Quantiser(Uniform(4)).to_integer(w), 3, w.shape)
    assert Binary().quantise(w, lambda rows, _: (rows.amin(1), rows.amax(1))).codes.max() == 1


class Net(torch.nn.Module):
    def __init__(self, weight: PackedBits) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight())


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_file_holds_the_packed_weight_and_loads_back_equal(tmp_path, suffix) -> None:
    w = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    net = Net(
        PackedBits(Quantiser(Uniform(3, symmetric=False, half=True), group=32).to_integer(w), 3, w.shape)
    )
    x = torch.randn(2, 256)
    written = export(net, (x,), tmp_path / f"net{suffix}")
    held = net.weight.nbytes
    assert held == 64 * 256 * 3 // 8 + 512 * 3 // 8 + 512 * 2
    if suffix == ".onnx":
        assert held < written.path.stat().st_size < 0.4 * w.nbytes
    else:  # its graph alone takes more than this weight
        assert sum(t.nbytes for t in torch.export.load(written.path).state_dict.values()) == held
    assert torch.allclose(load(written.path)(x), net(x), atol=1e-5)
