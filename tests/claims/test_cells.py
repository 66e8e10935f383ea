"""The table of cells: which edges matter, how a cell is read, what is equal to what."""

import itertools

import numpy as np
import pytest

from netwright.claims.beds.cells import EDGES, OPERATIONS, Cells, codes_of
from netwright.core.errors import BadInput

EVERY = list(itertools.product(range(len(OPERATIONS)), repeat=len(EDGES)))


@pytest.fixture(scope="module")
def cells() -> Cells:
    errors = np.random.default_rng(0).random(len(EVERY))
    return Cells(dict(zip(EVERY, errors, strict=True)), [0.0, 0.0, 0.5, 1.0, 3.0])


def inactive(codes: tuple[int, ...]) -> list[int]:
    """Edges with an end on no path, by trying every path."""
    there = {edge for edge, code in zip(EDGES, codes, strict=True) if code}
    paths = [(0, *middle, 3) for n in range(3) for middle in itertools.combinations((1, 2), n)]
    live = {0, 3} | {
        node for path in paths if all(s in there for s in itertools.pairwise(path)) for node in path
    }
    return [i for i, edge in enumerate(EDGES) if not set(edge) <= live]


def test_an_edge_with_an_end_on_no_path_is_inactive(cells) -> None:
    names = list(cells.genes)
    for codes in EVERY[::7]:
        off = cells.inactive(dict(zip(names, codes, strict=True)))
        assert off == [names[i] for i in inactive(codes)], codes


def test_a_cell_is_read_edge_by_edge() -> None:
    cell = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
    assert codes_of(cell) == (4, 0, 1, 2, 3, 0)


def test_choices_that_differ_in_inactive_edges_alone_are_one(cells) -> None:
    # no edge leads on from node 1, so what leads there does not matter
    dead, other = (4, 1, 0, 0, 0, 3), (2, 1, 0, 0, 0, 3)
    name = lambda codes: dict(zip(cells.genes, codes, strict=True))
    assert cells.inactive(name(dead)) == ["0-1", "1-2", "1-3"]
    assert dead not in cells.choices
    assert (0, 1, 0, 0, 0, 3) in cells.choices
    assert cells.measure(name(dead), None)["latency"] == cells.measure(name(other), None)["latency"] == 1.0
    assert cells.choices[0, 1, 0, 0, 0, 3]["error"] == cells.errors[0, 1, 0, 0, 0, 3]
    assert cells.array.shape == (len(cells.choices), 2)
    assert len(cells.choices) < len(EVERY)


def test_without_the_file_it_says_where_to_put_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("NETWRIGHT_DATA", str(tmp_path))
    with pytest.raises(BadInput, match="nas_bench_201_mini"):
        Cells.read()
