import dataclasses

import pytest

from netwright.core import catalogue
from netwright.core.errors import UnknownName

ROWS = list(catalogue.methods().values())


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.slug)
def test_every_row_names_real_code_and_says_what_it_is(row):
    assert row.goal in catalogue.GOALS
    assert row.contract in catalogue.CONTRACTS
    assert row.summary.endswith(".")
    assert row.slug == row.slug.lower().replace("_", "-")
    kind = row.load()
    assert kind.__doc__, "a method says what it does"
    if dataclasses.is_dataclass(kind):
        if row.contract != "Estimator":  # scikit-learn's estimators learn in place
            assert kind.__dataclass_params__.frozen
        assert set(row.settings) <= {f.name for f in dataclasses.fields(kind)}


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.slug)
def test_every_method_has_a_claim(row):
    from netwright.claims.record import module_of

    module = module_of(row.slug)
    assert module.CLAIM.slug == row.slug
    assert callable(module.measure)


def test_slugs_are_unique():
    import tomllib
    from importlib.resources import files

    rows = tomllib.loads(files("netwright").joinpath("catalogue.toml").read_text())["method"]
    slugs = [r["slug"] for r in rows]
    assert len(slugs) == len(set(slugs))


def test_an_unknown_method_names_the_nearest():
    near = ROWS[0].slug
    with pytest.raises(UnknownName, match=f"Did you mean '{near}'"):
        catalogue.method(near + "x")
    with pytest.raises(UnknownName, match="no goal"):
        catalogue.of_goal("compres")


def test_search_finds_by_every_word():
    row = ROWS[0]
    assert row in catalogue.search(row.slug)
    assert catalogue.search(row.slug + " certainly-not-there") == []
