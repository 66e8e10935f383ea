import importlib
import os
import sys

import cloudpickle
import psutil
import pytest
import torch
from tests.core.study import study_functions
from torch import nn

from netwright.core import progress
from netwright.core.errors import BadInput
from netwright.core.study import artefact
from netwright.core.study.processes import Processes
from netwright.core.study.study import Limits, Outcome, Study, Trial

cloudpickle.register_pickle_by_value(study_functions)
cloudpickle.register_pickle_by_value(sys.modules[__name__])

FACTORS = [Trial("learn", {"factor": f}) for f in (0.0, 2.0, 3.0)]


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path / "study.db", {"network": "abc"})


@pytest.fixture
def network():
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def test_rows_figures_and_networks(study, network):
    data, weight = torch.randn(6, 4), network[0].weight.detach().clone()
    rows = study.run(FACTORS, study_functions.learn, network, data)
    assert [r["label"] for r in rows] == ["learn (factor 0.0)", "learn (factor 2.0)", "learn (factor 3.0)"]
    assert torch.equal(network[0].weight, weight), "the shared network was changed"
    for row, trial in zip(rows, FACTORS, strict=True):
        kept = study.network(row["key"])
        # had one trial's changes been seen by the next, the factors would multiply (0 first)
        assert torch.equal(kept[0].weight, weight * trial.settings["factor"])
        assert row["mean"] == pytest.approx(kept(data).mean().item())
        assert study.file(row["key"], "note.txt") == b"kept"
        assert (row["status"], row["note"]) == ("done", "scaled")


def test_what_is_done_is_not_done_again(study, network):
    data = torch.randn(6, 4)
    study.run(FACTORS[:2], study_functions.learn, network, data)
    seen = []
    rows = study.run(
        FACTORS, study_functions.learn, network, data + 1, progress=lambda *news: seen.append(news)
    )
    assert {label for label, _ in seen} == {"learn (factor 3.0)"}
    assert seen[-1][1] == rows[2]
    assert rows[1]["mean"] == pytest.approx(study.network(rows[1]["key"])(data).mean().item())
    assert study.run(FACTORS, study_functions.do_exit) == rows
    assert study.best(minimise="mean")["mean"] == min(r["mean"] for r in rows)
    assert study.pareto(["mean"]) == [study.best(minimise="mean")]


def test_progress_is_heard_of_each_trial_and_of_the_study(study, network):
    heard, overall = [], []
    with progress.listen(overall.append):
        rows = study.run(
            FACTORS[:2], study_functions.learn, network, torch.randn(6, 4),
            progress=lambda *news: heard.append(news),
        )  # fmt: skip
    first, second = (t.label for t in FACTORS[:2])
    assert heard == [
        (first, (1, 2, "scaled")),
        (first, rows[0]),
        (second, (1, 2, "scaled")),
        (second, rows[1]),
    ]
    assert overall == [
        (0.5, 2, f"{first}: scaled"), (1, 2, f"{first}: done"), (1.5, 2, f"{second}: scaled"),
        (2, 2, f"{second}: done"),
    ]  # fmt: skip


def test_functions_and_classes_made_on_the_spot(study):
    class Local(nn.Module):
        def forward(self, x):
            return x + 1

    (row,) = study.run(
        [Trial("a")], lambda trial, net: Outcome({"y": net(torch.ones(1)).item()}, net), Local()
    )
    assert row["y"] == 2
    assert study.network(row["key"])(torch.ones(1)) == 2


def test_two_at_once(study, tmp_path):
    folder = tmp_path / "meeting"
    folder.mkdir()
    trials = [Trial("meet", {"folder": str(folder), "name": name}) for name in "ab"]
    rows = study.run(trials, study_functions.misbehave, jobs=2, limits=Limits(seconds=20))
    assert [r["status"] for r in rows] == ["done", "done"]


def test_shared_tensors_take_memory_once(study):
    size = 200_000_000  # bytes

    def touch(trial, tensor):
        tensor.sum()
        return study_functions.do_memory(trial)

    bare, loaded = (
        study.run([Trial("memory", {"n": i})], touch, torch.zeros(n))[0]["private"]
        for i, n in enumerate((1, size // 4))
    )
    assert loaded - bare < size / 4


def test_nothing_is_left_open_or_running(study):
    this = psutil.Process()
    trials = [Trial("well", {"i": i}) for i in range(8)]
    study.run(trials[:3], study_functions.misbehave)
    before, children = this.num_fds(), len(this.children(recursive=True))
    study.run(trials, study_functions.misbehave)
    assert this.num_fds() <= before
    assert len(this.children(recursive=True)) <= children
    assert os.listdir(study.folder) == []


def test_a_changed_file_is_refused(study, network):
    (row,) = study.run(FACTORS[:1], study_functions.learn, network, torch.randn(6, 4))
    path = study.folder / row["key"] / "network.pt"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BadInput, match=r"not written by you.*Delete the study"):
        study.network(row["key"])
    with pytest.raises(BadInput, match="left no file"):
        study.file(row["key"], "other")
    with pytest.raises(BadInput, match="no trial"):
        study.network("zz")


def test_a_file_of_another_trial_is_refused_unless_trusted(study, network):
    one, two, _ = study.run(FACTORS, study_functions.learn, network, torch.randn(6, 4))
    other = (study.folder / two["key"] / "network.pt").read_bytes()
    (study.folder / one["key"] / "network.pt").write_bytes(other)
    with pytest.raises(BadInput, match="not written by you"):
        study.network(one["key"])
    assert torch.equal(study.network(one["key"], trust=True)[0].weight, network[0].weight * 2)


def test_a_network_whose_code_has_moved_is_one_line(study, network, tmp_path, monkeypatch):
    (tmp_path / "earlier_layout.py").write_text(
        "from torch import nn\n\n\nclass Small(nn.Linear):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    kind = importlib.import_module("earlier_layout").Small
    (row,) = study.run(FACTORS[:1], study_functions.learn, network, torch.randn(6, 4))
    artefact.pack(kind(4, 2), study.folder / row["key"] / "network.pt")
    assert isinstance(study.network(row["key"], trust=True), nn.Linear)
    monkeypatch.delitem(sys.modules, "earlier_layout")
    (tmp_path / "earlier_layout.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(BadInput, match=r"another version of Netwright.*earlier_layout.*run it again"):
        study.network(row["key"], trust=True)


def test_the_same_trial_twice_is_refused(study):
    with pytest.raises(BadInput, match="'a' and 'b' are the same"):
        study.run([Trial("x", label="a"), Trial("x", label="b")], study_functions.misbehave)


def test_what_cannot_leave_the_process_is_one_line(study):
    with study.path.open() as file, pytest.raises(BadInput, match="network, the task or the trial function"):
        study.run([Trial("well")], study_functions.misbehave, file)
    assert study.rows == []


def test_a_study_that_is_being_run_is_left_alone(study):
    other = Study(study.path, {"network": "abc"})
    with other.record.lock(), pytest.raises(BadInput, match="is being run by process"):
        study.run([Trial("well")], study_functions.misbehave)


def test_warming_up_starts_the_server_before_it_is_needed(study):
    Processes().warm()
    (row,) = study.run([Trial("well")], study_functions.misbehave, runner=Processes())
    assert row["x"] == 1
