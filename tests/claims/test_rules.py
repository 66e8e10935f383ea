"""Every claim's rule, found through the catalogue: on made-up figures, and on the rows that are committed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netwright import claims as claims_package
from netwright.claims.record import module_of
from netwright.claims.rule import Part, Rule
from netwright.core import catalogue
from netwright.core.errors import BadInput

COMMITTED = Path(__file__).parents[2] / "docs" / "claims"


def claims() -> dict[str, Any]:
    found = {}
    for slug in catalogue.methods():
        try:
            found[slug] = module_of(slug)
        except BadInput:  # a method that has none yet
            continue
    return found


CLAIMS = claims()


def test_a_claims_folder_holds_claims_and_nothing_else() -> None:
    """What several claims share stands in beds/, so that one look at a folder tells which methods have a claim."""
    root = Path(claims_package.__file__).parent
    found = {
        path for path in root.glob("*/*.py") if path.name != "__init__.py" and path.parent.name != "beds"
    }
    assert found == {Path(module.__file__) for module in CLAIMS.values()}


def made_up(part: Part, met: bool) -> Any:
    """A figure that meets the condition, or just does not: its mean is on the right side, its interval is not."""
    limit = part.limit
    value = lambda mean, low, high: {"mean": limit + mean, "low": limit + low, "high": limit + high}
    if part.relation == "above":
        return value(2, 1 if met else -1, 3)
    if part.relation == "below":
        return value(-2, -3, -1 if met else 1)
    if part.relation == "around":
        return value(1, -1 if met else 0.5, 3)
    if part.relation == "within":
        return {"mean": -limit / 2 if met else -limit - 1, "low": -limit - 2, "high": limit + 2}
    towards = 1 if part.relation == "at least" else -1
    return limit + (towards if met else -towards) * 0.25


def figures(rule: Rule, missed: tuple[Part, ...] = ()) -> dict[str, Any] | None:
    """All conditions are met but those missed; None where no figure can be so."""
    every = list(dict.fromkeys(part for group in (rule.bed, rule.holds, *rule.groups) for part in group))
    found = {}
    for name in {part.figure for part in every}:
        parts = [part for part in every if part.figure == name]
        values = [made_up(part, met) for part in parts for met in (True, False)]
        fitting = [v for v in values if all(part.met({name: v}) == (part not in missed) for part in parts)]
        if not fitting:
            return None
        found[name] = fitting[0]
    return found


@pytest.mark.parametrize("slug", CLAIMS)
def test_each_verdict_comes_out_where_the_rule_says(slug: str) -> None:
    rule: Rule = CLAIMS[slug].CLAIM.rule
    every = tuple(dict.fromkeys(part for group in (rule.holds, *rule.groups) for part in group))

    def check(missed: tuple[Part, ...], expected: str) -> bool:
        values = figures(rule, missed)
        if values is not None:
            assert rule.verdict(values) == expected, missed
        return values is not None

    assert check((), "holds")
    assert check(every, "does not hold here")
    for part in rule.holds:  # each condition counts
        others = [group for group in rule.groups if part not in group]
        assert check((part,), "mixed" if others else "does not hold here")
    for group in rule.groups:  # each alternative is enough by itself
        missed = tuple(part for part in every if part not in group)
        assert not missed or check(missed, "mixed")
    for part in rule.bed:  # an unfit bed says nothing, whatever the figures
        assert check((part,), "cannot show here")
        assert check((part, *every), "cannot show here")
    for part in (*rule.holds, *rule.bed):
        assert part.words() in rule.words()


def leaves(value: Any, where: str = "") -> dict[str, Any]:
    """Every number and word of nested figures, by its place."""
    if not isinstance(value, dict):
        return {where: value}
    return {k: v for key, inner in value.items() for k, v in leaves(inner, f"{where}/{key}").items()}


@pytest.mark.parametrize("slug", CLAIMS)
def test_what_is_committed_follows_from_its_rows(slug: str) -> None:
    path = COMMITTED / f"{slug}.json"
    if not path.exists():
        pytest.skip("not measured yet")
    refuse = lambda text: pytest.fail(f"{path.name} is no valid JSON: it holds {text}")
    written = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    module = CLAIMS[slug]
    if "bed" not in written:
        pytest.skip("measured before rules were code: to be measured again")
    try:
        measured, rule = module.judge(written["rows"]), module.CLAIM.rule
    except KeyError:
        if written["setting"] != module.CLAIM.setting:
            pytest.skip("the claim has other rows since: to be measured again")
        raise
    for name, now in (("figures", measured.figures), ("bed", measured.bed)):
        before, after = leaves(written[name]), leaves(now)
        assert before.keys() == after.keys()
        for where, value in after.items():
            expected = pytest.approx(value, rel=1e-3, abs=1e-5) if isinstance(value, (int, float)) else value
            assert before[where] == expected, where
    assert written["verdict"] == rule.verdict({**measured.bed, **measured.figures})
    assert written["holds_if"] == rule.words()
    for value in measured.figures.values():
        if isinstance(value, dict) and "low" in value:
            assert value["interval"].endswith("t, 95 %")


def test_the_words_and_the_code_of_each_relation_agree() -> None:
    gap = {"mean": 0.5, "low": -0.1, "high": 1.1}
    said = {
        "above": False, "below": False, "around": True, "at least": True, "at most": False, "within": False,
    }  # fmt: skip
    for relation, expected in said.items():
        part = Part("gain", relation)  # type: ignore[arg-type]
        assert part.met({"gain": gap}) is expected, relation
        assert part.words().startswith("gain: ")
    assert Part("gain", "within", 0.5).met({"gain": {**gap, "mean": -0.5}})
    assert Part("gain", "above", -0.2).met({"gain": gap})
    assert Part("gain", "below", 1.2).met({"gain": gap})
    assert Part("count", "at most").met({"count": 0})


def test_a_rule_that_is_never_mixed_and_one_that_names_its_alternatives() -> None:
    a, b = Part("a", "at least", 1), Part("b", "at least", 1)
    verdicts = lambda rule: [rule.verdict({"a": x, "b": y}) for x, y in ((1, 1), (1, 0), (0, 1), (0, 0))]
    assert verdicts(Rule((a, b))) == ["holds", "mixed", "mixed", "does not hold here"]
    assert verdicts(Rule((a, b), mixed=())) == ["holds", *["does not hold here"] * 3]
    assert verdicts(Rule((a, b), mixed=((a,),))) == ["holds", "mixed", *["does not hold here"] * 2]
    assert verdicts(Rule((a,), bed=(b,))) == [
        "holds",
        "cannot show here",
        "does not hold here",
        "cannot show here",
    ]
    assert "Mixed if a: at least 1" in Rule((a, b), mixed=((a,),)).words()
    assert "Cannot show here without b" in Rule((a,), bed=(b,)).words()
