"""What a run writes down about itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from netwright.claims import record
from netwright.claims.record import Claim, Measured, Scale, run
from netwright.core.errors import BadInput


@pytest.fixture
def claim(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A claim whose code changes while it runs."""
    revisions = iter(["before", "after"])
    module = SimpleNamespace(
        CLAIM=Claim("made-up", "paper", "setting", "rule"),
        measure=lambda scale: (record.revision(), Measured([], "holds", "", {"figure": 1 / 3}, seeds=(0, 1)))[
            1
        ],
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


def test_a_claim_without_a_full_scale_does_not_pretend_to_one(claim: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no full scale"):
        run("made-up", Scale("full"), tmp_path)
    assert not list(tmp_path.iterdir())
