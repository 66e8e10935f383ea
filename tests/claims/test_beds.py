"""Beds are trained once, go on after an interruption, and say how far they have converged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from netwright.app.beds import beds
from netwright.claims.beds import pruning, recipes, trained
from netwright.claims.beds.recipes import BEDS, CONVERGED, Bed
from netwright.claims.clock import left_out
from netwright.claims.compress import random_pruning
from netwright.claims.record import Scale
from netwright.core import progress
from netwright.core.errors import UnknownName
from netwright.core.fit import Fit, History

SMALL = Bed(
    "mlp", "digits", Fit(epochs=4, lr=3e-3, validate=True), {"widths": (32,)}, at_least=0.2, about="a small one"
)  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setitem(recipes.BEDS, "small", SMALL)


def weights(name: str = "small", seed: int = 0) -> dict[str, torch.Tensor]:
    return trained.testbed(name, seed)[0].state_dict()


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_a_bed_is_trained_once_and_not_on_the_claim_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    before = left_out()[0]
    first = weights()
    assert left_out()[0] > before
    monkeypatch.setattr(trained, "_train", lambda *_: pytest.fail("trained twice"))
    assert same(first, weights())
    found = trained.convergence("small", 0)
    assert 0.2 < found.accuracy <= 1
    assert found.last_quarter is not None
    assert found.seconds > 0


def test_another_recipe_is_another_bed(monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained.path_of("small", 0)
    assert trained.path_of("small", 1) != path
    monkeypatch.setitem(
        recipes.BEDS, "small", Bed("mlp", "digits", Fit(epochs=5, validate=True), {"widths": (32,)})
    )
    assert trained.path_of("small", 0) != path


def test_an_interrupted_training_goes_on_and_ends_where_it_would_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = weights()
    monkeypatch.setenv("NETWRIGHT_CACHE", str(tmp_path / "second"))

    def stop(shown: progress.Progress) -> None:
        if shown.note.startswith("epoch 3"):
            raise KeyboardInterrupt

    with progress.listen(stop), pytest.raises(KeyboardInterrupt):
        weights()
    folder = trained.cache_folder()
    assert [p.name.endswith(".partial.safetensors") for p in folder.iterdir()] == [True]
    seen: list[str] = []
    with progress.listen(lambda shown: seen.append(shown.note)):
        assert same(whole, weights())
    assert not any(note.startswith(("epoch 1", "epoch 2")) for note in seen)
    assert [p.name.endswith(".partial.safetensors") for p in folder.iterdir()] == [False]


def test_the_gain_of_the_last_quarter_and_the_seconds_of_a_resumed_run() -> None:
    rows = [
        {"accuracy": a, "seconds": s}
        for a, s in zip((1, 2, 3, 5, 6, 7, 8, 11), (1, 2, 3, 4, 1, 2, 3, 4), strict=True)
    ]
    history = History([{k: float(v) for k, v in row.items()} for row in rows])
    assert trained.gained(history, "accuracy") == 11 - 7
    assert trained.spent(history) == 8
    assert trained.gained(History(), "accuracy") is None


def test_the_command_trains_what_is_missing_and_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    beds(["small"], 2, "cpu", True, True)
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["not trained"] * 2
    beds(["small"], 1, "cpu", False, True)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["state"] == ("ready" if row["last_quarter"] < 0.003 else "not converged")
    monkeypatch.setitem(
        recipes.BEDS, "small", replace(SMALL, at_least=0.999)
    )  # the same recipe, asked for more
    beds(["small"], 1, "cpu", True, True)
    assert json.loads(capsys.readouterr().out)[0]["state"] == "not converged"
    with pytest.raises(UnknownName, match="smal"):
        beds(["smal"], 1, "cpu", True, True)


@pytest.mark.parametrize("name", CONVERGED)
def test_a_converged_bed_watches_its_validation_data_and_stops_moving_before_the_last_quarter(
    name: str,
) -> None:
    bed = BEDS[name]
    assert bed.fit.validate
    assert bed.at_least > (0.5 if bed.task == "python-source" else 0.7)  # one of 256 bytes
    assert bed.about
    assert bed.fit.schedule == "steps"
    assert max(bed.fit.milestones) < 0.75


def test_pruning_claims_take_their_bed_figures_from_the_trained_bed(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Bed("cnn", "digits", Fit(epochs=3, lr=1e-2, validate=True), {"widths": (8, 8)})
    monkeypatch.setitem(recipes.BEDS, pruning.BED, small)
    scale = Scale(seeds=(0, 1))
    rows = [
        row
        for seed in scale.seeds
        for row in pruning.pruned(random_pruning.arms(seed), seed, scale, scratch_of="random")[0]
    ]
    measured = random_pruning.judge(rows)
    shown = [trained.convergence(pruning.BED, seed) for seed in scale.seeds]
    assert measured.bed["accuracy before"] == pytest.approx(sum(s.accuracy for s in shown) / 2)
    assert measured.bed["gained in the last quarter of training"] == pytest.approx(
        sum(s.last_quarter or 0.0 for s in shown) / 2
    )
    rule = random_pruning.CLAIM.rule
    assert all(part.figure in {**measured.bed, **measured.figures} for part in (*rule.bed, *rule.holds))
    # three epochs of digits are no bed
    assert rule.verdict({**measured.bed, **measured.figures}) == "cannot show here"
    assert "same shape from scratch" not in {row["arm"] for row in rows}  # at full scale alone
