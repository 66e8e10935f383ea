"""Products with a part of a matrix, against float64, and what they count as."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from netwright.core.weights import kernels

# numbers of rows below, at and above what the loops take at a time
SIZES = [(9, 7, 0), (9, 7, 3), (64, 33, 8), (130, 48, 61), (5, 1, 5)]


@pytest.mark.parametrize(("out", "into", "count"), SIZES)
def test_some_rows_and_some_columns_are_exact(out, into, count):
    draw = torch.Generator().manual_seed(out)
    weight, x = torch.randn(out, into, generator=draw), torch.randn(into, generator=draw)
    keep = torch.zeros(out, dtype=torch.bool)
    keep[torch.randperm(out, generator=draw)[:count]] = True
    expected = (weight.double() @ x.double()) * keep
    torch.testing.assert_close(kernels.some_rows(weight, x, keep).double(), expected, atol=1e-5, rtol=1e-5)
    # the same matrix as one of `into` outputs, whose columns are now the rows
    values = (0.5 + torch.rand(out, generator=draw)) * torch.where(keep, -1.0, 0.1)
    expected = weight.double().T @ (values.double() * keep)
    found = kernels.some_columns(weight, values, torch.tensor(0.5))
    assert found.shape == (into,)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_threshold_that_is_met_keeps():
    z, g = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, -0.5, 0.4, -0.6])
    keep = kernels.switch_off(z, g, torch.tensor([0.5, 0.6, 0.5, 0.5]), -torch.inf)
    assert keep.tolist() == [True, False, False, True]
    assert z.tolist() == [1.0, -torch.inf, -torch.inf, 4.0]


def test_only_what_is_read_counts():
    weight, keep = torch.randn(40, 16), torch.arange(40) % 4 == 0
    for run in (
        lambda: kernels.some_rows(weight, torch.randn(16), keep),
        lambda: kernels.some_columns(weight, keep.float(), torch.tensor(1.0)),
    ):
        with FlopCounterMode(display=False) as counter:
            run()
        assert counter.get_total_flops() == 2 * 10 * 16


def test_what_they_serve():
    weight, row = torch.randn(4, 3), torch.randn(1, 1, 3)
    assert kernels.serves(row, weight)
    assert kernels.serves(row[0, 0], weight)
    assert not kernels.serves(torch.randn(2, 3), weight)
    assert not kernels.serves(row.double(), weight.double())
    assert not kernels.serves(row.requires_grad_(), weight)
    learned = torch.nn.Parameter(weight)
    assert not kernels.serves(torch.randn(1, 3), learned)
    with torch.no_grad():
        assert kernels.serves(torch.randn(1, 3), learned)
