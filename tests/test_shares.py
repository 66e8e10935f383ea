"""Which method a test is counted for, and what is said of one that takes too much."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tests.shares import beyond_their_share, by_method, method_of

SLUGS = ("lst", "linas", "linas-pruning", "smooth-gradcampp", "lightgcn")


@pytest.mark.parametrize(
    ("nodeid", "slug"),
    [
        ("tests/search/test_linas.py::test_a[linas-pruning]", "linas"),
        ("tests/search/test_linas_pruning.py::test_a", "linas-pruning"),
        ("tests/search/linas_pruning/test_space.py::test_a", "linas-pruning"),
        ("tests/claims/explain/test_smooth_gradcampp.py::test_a", "smooth-gradcampp"),
        ("tests/conformance/test_conformance.py::test_a[linas-pruning-residual]", "linas-pruning"),
        ("tests/conformance/test_conformance.py::test_a[linas-bare]", "linas"),
        ("tests/conformance/test_conformance.py::test_a[lst]", "lst"),
        ("tests/conformance/test_conformance.py::test_every_contract_has_a_check", None),
        ("tests/core/test_fit.py::test_a[lst]", None),
    ],
)
def test_a_test_belongs_to_the_method_of_its_file_or_of_its_row(nodeid, slug):
    assert method_of(nodeid, SLUGS) == slug


def test_seconds_are_added_up_once_a_test():
    def report(when, cpu):
        return SimpleNamespace(nodeid="tests/adapt/test_lst.py::a", when=when, user_properties=[("cpu", cpu)])

    assert by_method([report("setup", 9.0), report("teardown", 2.0), report("teardown", 1.5)]) == {"lst": 3.5}


def test_the_ten_that_take_most_are_named_where_it_is_too_much():
    assert [x.split() for x in beyond_their_share({"lst": 6.26, "linas": 4.9, "lightgcn": 12.0})] == [
        ["12.0", "s", "lightgcn"],
        ["6.3", "s", "lst"],
    ]
    assert len(beyond_their_share({str(i): 6.0 for i in range(12)})) == 10
