import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwright.app.report.scatter import HEIGHT, WIDTH, Series, scatter, ticks

NAME = "{http://www.w3.org/2000/svg}"


def test_points_stand_where_their_values_are():
    svg = scatter(
        [
            Series("candidates", [1.0, 2.0, 3.0], [0.1, 0.2, 0.4], ["a & b", "<c>", "d"]),
            Series("front", [1.0, 3.0], [0.1, 0.4], line=True),
            Series("empty", [], []),
        ],
        "ms", "accuracy",
    )  # fmt: skip
    root = ET.fromstring(svg)
    marks = [t for t in root.iter(f"{NAME}text") if t.find(f"{NAME}title") is not None]
    assert [t.find(f"{NAME}title").text for t in marks] == ["a & b: 1, 0.1", "<c>: 2, 0.2", "d: 3, 0.4"]
    x, y = ([float(t.get(axis)) for t in marks] for axis in "xy")
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    assert (y[0] - y[1]) * 2 == pytest.approx(y[1] - y[2], abs=0.4)
    assert all(0 < v < WIDTH for v in x)
    assert all(0 < v < HEIGHT for v in y)
    assert "empty" not in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert len(svg) < 5000


def test_one_point_and_no_point():
    ET.fromstring(scatter([Series("one", [0.0], [0.0])], "x", "y"))
    assert scatter([Series("none", [], [])], "x", "y") == ""


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low, width):
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 11
    assert all(low - 1e-9 * width <= t <= low + width * (1 + 1e-9) for t in found)
