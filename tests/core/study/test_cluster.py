"""The same trial function on Ray. Takes some seconds to start; skipped where Ray is not installed."""

import socket
import sys
import time

import cloudpickle
import pytest
import torch
from tests.core.study import study_functions
from torch import nn

from netwright.core.errors import BadInput, MissingExtra
from netwright.core.study.cluster import check_address
from netwright.core.study.study import Limits, Study, Trial

cloudpickle.register_pickle_by_value(study_functions)


@pytest.fixture(scope="module")
def runner():
    pytest.importorskip("ray")
    from netwright.core.study.cluster import Ray

    runner = Ray("local")
    runner.warm()
    yield runner
    runner.ray.shutdown()


@pytest.mark.slow
def test_same_rows_and_networks_as_at_home(runner, tmp_path):
    trials = [Trial("learn", {"factor": f}) for f in (0.5, 2.0, 3.0)]
    network, data = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.randn(6, 4)
    heard, found = [], []
    for name, where in (("home", None), ("ray", runner)):
        study = Study(tmp_path / name / "study.db", {})
        rows = study.run(
            trials, study_functions.learn, network, data, runner=where, progress=lambda *n: heard.append(n)
        )
        found.append([(r["label"], r["status"], r["note"], r["mean"]) for r in rows])
        for row, trial in zip(rows, trials, strict=True):
            assert torch.equal(
                study.network(row["key"])[0].weight, network[0].weight * trial.settings["factor"]
            )
    assert found[0] == found[1]
    for trial in trials:
        assert heard.count((trial.label, (1, 2, "scaled"))) == 2


@pytest.mark.slow
def test_misbehaving_trials_are_rows(runner, tmp_path):
    study = Study(tmp_path / "study.db", {})
    slugs = ["exit", "segfault", "hang", "raise", "refuse", "well"]
    rows = study.run(
        [Trial(slug) for slug in slugs], study_functions.misbehave, runner=runner, limits=Limits(seconds=3)
    )
    assert [r["status"] for r in rows] == [
        "failed", "failed", "timed out", "failed", "not applicable", "done"
    ]  # fmt: skip
    assert rows[1]["reason"] == "its process crashed (SIGSEGV)"
    (row,) = study.run(
        [Trial("eat")], study_functions.misbehave, runner=runner, limits=Limits(60, 700_000_000)
    )
    assert row["status"] == "out of memory"


def test_without_ray_it_says_what_to_install(monkeypatch):
    from netwright.core.study.cluster import Ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"needs ray: pip install 'netwright\[ray\]'"):
        Ray()


@pytest.mark.slow
def test_no_cluster_there(tmp_path):
    pytest.importorskip("ray").shutdown()
    from netwright.core.study.cluster import Ray

    with pytest.raises(BadInput, match="no Ray cluster at 'auto'"):
        Ray("auto").warm()


def test_an_address_that_nobody_answers_fails_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for address in ("auto", "local", f"127.0.0.1:{port}", f"ray://localhost:{port}"):
            check_address(address)
    start = time.monotonic()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(BadInput, match=r"no Ray cluster at .*: Connection refused"):
            check_address(address)
    assert time.monotonic() - start < 15
    for address in ("127.0.0.1", "host:port", ":1"):
        with pytest.raises(BadInput, match="give HOST:PORT, auto or local"):
            check_address(address)
