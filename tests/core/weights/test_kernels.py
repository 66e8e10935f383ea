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
    rows = torch.randperm(out, generator=draw)[:count].sort().values
    expected = torch.zeros(out, dtype=torch.float64)
    expected[rows] = weight.double()[rows] @ x.double()
    torch.testing.assert_close(kernels.some_rows(weight, x, rows).double(), expected, atol=1e-5, rtol=1e-5)
    # the same matrix as one of `into` outputs, whose columns are now the rows
    values = torch.randn(out, generator=draw)
    expected = weight.double()[rows].T @ values.double()[rows]
    found = kernels.some_columns(weight, values, rows)
    assert found.shape == (into,)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_only_what_is_read_counts():
    weight, rows = torch.randn(40, 16), torch.arange(0, 40, 4)
    for run in (
        lambda: kernels.some_rows(weight, torch.randn(16), rows),
        lambda: kernels.some_columns(weight, torch.randn(40), rows),
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
