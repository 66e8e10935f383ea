"""IDX bytes: what is written is read, and nothing else is accepted."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from netwright.core.errors import BadInput
from netwright.data.idx import parse, read


def written(values: np.ndarray) -> bytes:
    return (
        b"\x00\x00\x08"
        + bytes([values.ndim])
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.tobytes()
    )


@given(arrays(np.uint8, array_shapes(max_dims=4, max_side=6)))
def test_what_is_written_is_read(values):
    assert np.array_equal(parse(written(values), "x"), values)


@given(arrays(np.uint8, array_shapes(max_dims=3, max_side=4)), st.integers(1, 50))
def test_any_cut_is_noticed(values, cut):
    data = written(values)
    with pytest.raises(BadInput):
        parse(data[: max(0, len(data) - cut)], "x")


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_consistent(data):
    try:
        values = parse(data, "x")
    except BadInput:
        return
    assert written(values) == data


def test_a_damaged_gzip_is_one_clear_error(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(written(np.zeros((10, 10), np.uint8)))[:-12])
    with pytest.raises(BadInput, match="fetch it again"):
        read(path)
