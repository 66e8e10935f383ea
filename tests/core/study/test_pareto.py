import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwright.core.errors import BadInput
from netwright.core.study.study import best, pareto

FIGURE = st.integers(0, 4).map(float)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"status": st.sampled_from(["done", "done", "failed"]), "ms": FIGURE, "accuracy": FIGURE}
    ),
    max_size=12,
)


@given(ROWS)
def test_front_is_what_nobody_beats(rows):
    front = pareto(rows, minimise=["ms"], maximise=["accuracy"])
    able = [r for r in rows if r["status"] == "done"]
    for row in able:
        beaten = any(
            o["ms"] <= row["ms"] and o["accuracy"] >= row["accuracy"]
            and (o["ms"] < row["ms"] or o["accuracy"] > row["accuracy"])
            for o in able
        )  # fmt: skip
        assert any(row is f for f in front) != beaten
    assert all(f in able for f in front)


def test_rows_without_the_figure_have_no_place():
    rows = [
        {"status": "done", "ms": math.nan, "accuracy": 1.0},
        {"status": "done", "accuracy": 1.0},
        {"status": "done", "ms": 3.0, "accuracy": 0.1},
    ]
    assert pareto(rows, ["ms"], ["accuracy"]) == rows[2:]
    assert best(rows, minimise="ms") is rows[2]


def test_best():
    rows = [{"status": "done", "ms": float(i), "accuracy": i / 10} for i in range(10)]
    assert best(rows, maximise="ms") is rows[9]
    assert best(rows, minimise="ms", where=lambda r: r["accuracy"] >= 0.5) is rows[5]
    assert best(rows, minimise="ms", where=lambda r: False) is None
    with pytest.raises(BadInput):
        best(rows)
