"""Every method of the catalogue, on awkward networks: a correct result, or a refusal that says why; nothing else.

A row in the catalogue enrols its method. `make test` takes three networks per method, `make conformance` all.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from tests.conformance import checks, single
from tests.conformance.networks import NETWORKS

from netwright.core import catalogue
from netwright.core.catalogue import Method

ON_NETWORKS = ("Transform", "Analysis", "Explainer", "Verifier", "Predictor")
ALONE = ("Searcher", "Model", "Estimator", "Simulator")
_served: dict[str, bool] = {}


def some_networks(slug: str) -> list[str]:
    """The residual network, and two that differ from method to method."""
    rest = [name for name in NETWORKS if name != "residual"]
    start = zlib.crc32(slug.encode())
    return ["residual", rest[start % len(rest)], rest[(start // 7 + 3) % len(rest)]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "network_name" in metafunc.fixturenames:
        everywhere = metafunc.config.getoption("--all-networks")
        chosen = [
            (row, name)
            for row in catalogue.methods().values()
            if row.contract in ON_NETWORKS
            for name in (NETWORKS if everywhere else dict.fromkeys(some_networks(row.slug)))
        ]
        metafunc.parametrize(("row", "network_name"), chosen, ids=[f"{r.slug}-{n}" for r, n in chosen])


def run(row: Method, name: str, folder: Path, suffix: str = "") -> str:
    check = getattr(checks, row.contract.lower())
    reason = check(row, name, folder, suffix) if row.contract == "Transform" else check(row, name)
    _served[row.slug] = _served.get(row.slug, False) or not reason
    return reason


def test_a_correct_result_or_a_reason(row, network_name, tmp_path, pytestconfig):
    # repeating and exporting are most of the time: on the first network that a method serves, unless all is asked
    everywhere = pytestconfig.getoption("--all-networks")
    suffix = ".onnx" if everywhere else "" if _served.get(row.slug) else ".pt2"
    reason = run(row, network_name, tmp_path, suffix)
    print(reason or "served")


@pytest.mark.parametrize(
    "row", [r for r in catalogue.methods().values() if r.contract in ON_NETWORKS], ids=lambda r: r.slug
)
def test_it_serves_some_network(row, tmp_path):
    """A method that refuses everything would pass all else."""
    if not _served.get(row.slug):
        assert any(not run(row, name, tmp_path) for name in NETWORKS)


@pytest.mark.parametrize(
    "row",
    [
        r
        for r in catalogue.methods().values()
        if r.contract in ("Transform", "Analysis", "Explainer", "Verifier")
    ],
    ids=lambda r: r.slug,
)
def test_a_budget_of_a_second_ends_in_time(row):
    print(checks.ends_in_time(row) or "ended")


@pytest.mark.parametrize(
    "row", [r for r in catalogue.methods().values() if r.contract in ALONE], ids=lambda r: r.slug
)
def test_methods_that_start_from_no_network(row, tmp_path):
    check = getattr(single, row.contract.lower())
    if row.contract == "Model":
        check(row, tmp_path)
    else:
        check(row)


def test_every_contract_has_a_check():
    assert set(ON_NETWORKS) | set(ALONE) | {"Engine"} == set(catalogue.CONTRACTS)
    engines = [r.slug for r in catalogue.methods().values() if r.contract == "Engine"]
    assert not engines, f"say how an Engine is checked: {engines}"
