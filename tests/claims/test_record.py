"""What a run writes down about itself."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from netwright.claims import record
from netwright.claims.clock import uncounted
from netwright.claims.record import Claim, Measured, Scale, judge_again, run
from netwright.claims.rule import Part, Rule
from netwright.core.errors import BadInput


@pytest.fixture
def claim(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A claim whose code changes while it runs."""
    revisions = iter(["before", "after", "after", "later"])
    module = SimpleNamespace(
        CLAIM=Claim("made-up", "paper", "setting", Rule((Part("figure", "at least", 0.3),))),
        measure=lambda scale: [{"arm": record.revision(), "seed": seed, "x": 1 / 3} for seed in (0, 1)],
        judge=lambda rows: Measured("said", {"figure": rows[0]["x"]}),
    )
    monkeypatch.setattr(record, "module_of", lambda slug: module)
    monkeypatch.setattr(record, "revision", lambda: next(revisions))
    return module


def test_the_record_names_the_code_that_ran_and_the_seeds_that_were_used(
    claim: SimpleNamespace, tmp_path: Path
) -> None:
    run("made-up", Scale(seeds=(0, 1, 2)), tmp_path)
    written = json.loads((tmp_path / "made-up.json").read_text())
    assert written["revision"] == "before"
    assert written["seeds"] == [0, 1]
    assert written["figures"] == {"figure": 0.333333}
    assert written["verdict"] == "holds"
    assert written["holds_if"] == "figure: at least 0.3"


def test_a_claim_without_a_full_scale_does_not_pretend_to_one(claim: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no full scale"):
        run("made-up", Scale("full"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_seed_is_refused_before_anything_is_measured(claim: SimpleNamespace, tmp_path: Path) -> None:
    claim.measure = lambda scale: pytest.fail("measured")
    with pytest.raises(BadInput, match="seeds"):
        run("made-up", Scale(seeds=(0,)), tmp_path)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_figure_that_is_not_finite_is_refused_by_name(
    claim: SimpleNamespace, tmp_path: Path, value: float
) -> None:
    claim.CLAIM = Claim("made-up", "", "", Rule((Part("seeds", "at least", 1),)))
    claim.judge = lambda rows: Measured("said", {"seeds": 2, "figure": {"mean": [1.0, value]}})
    with pytest.raises(ValueError, match=r"figures\.figure\.mean\[1\]"):
        run("made-up", Scale(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_rows_are_judged_again_without_being_measured(claim: SimpleNamespace, tmp_path: Path) -> None:
    before = run("made-up", Scale(), tmp_path)
    claim.measure = lambda scale: pytest.fail("measured")
    claim.CLAIM = Claim(
        "made-up", "another paper", "another setting", Rule((Part("figure", "at least", 0.5),))
    )
    run_again = judge_again("made-up", tmp_path)
    written = json.loads((tmp_path / "made-up.json").read_text())
    assert run_again["verdict"] == written["verdict"] == "does not hold here"
    assert written["holds_if"] == "figure: at least 0.5"
    # what the run wrote of itself stays, and who judged is said
    assert written["setting"] == "setting"
    assert written["revision"] == "before"
    assert written["judged"]["revision"] == "later"
    assert written["seconds"] == before["seconds"]


def test_training_a_bed_is_not_the_claim_s_time(claim: SimpleNamespace, tmp_path: Path) -> None:
    def measure(scale: Scale) -> list[dict[str, float | str]]:
        with uncounted():
            time.sleep(0.5)
        return [{"arm": "a", "seed": seed, "x": 1.0} for seed in (0, 1)]

    claim.measure = measure
    start = time.monotonic()
    result = run("made-up", Scale(), tmp_path)
    assert result["seconds"] <= time.monotonic() - start - 0.4
