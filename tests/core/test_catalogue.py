import dataclasses
import tomllib
from pathlib import Path

import pytest

import netwright
from netwright.core import catalogue
from netwright.core.errors import UnknownName

SOURCE = Path(netwright.__file__).parents[1]
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


def test_slugs_are_unique_and_each_goal_has_its_file():
    folder = Path(netwright.__file__).parent / "catalogue"
    rows = {p.stem: tomllib.loads(p.read_text())["method"] for p in folder.glob("*.toml")}
    assert set(rows) == set(catalogue.GOALS)
    slugs = [row["slug"] for listed in rows.values() for row in listed]
    assert sorted(slugs) == sorted({row.slug for row in ROWS})
    assert len(slugs) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.slug)
def test_a_method_has_the_module_of_its_name(row):
    """netwright.<goal>.<slug>; a method that is made of another goal's parts lives there (goals import no goal)."""
    package, *inner, module = row.path.partition(":")[0].removeprefix("netwright.").split(".")
    assert package in catalogue.GOALS
    assert len(inner) == (package == "domains")
    assert module == row.slug.replace("-", "_")


def rooms():
    """Every goal's folder, of domains each domain's."""
    root = Path(netwright.__file__).parent
    inside = lambda folder: [p for p in sorted(folder.iterdir()) if (p / "__init__.py").is_file()]
    return [root / g for g in catalogue.GOALS if g not in ("domains", "models")] + inside(root / "domains")


@pytest.mark.parametrize("folder", rooms(), ids=lambda f: f.name)
def test_a_folder_of_methods_holds_methods_and_parts_and_nothing_else(folder):
    found = {p.stem for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    modules = {Path(*row.path.partition(":")[0].split(".")) for row in ROWS}
    methods = {m.name for m in modules if m.parent == folder.relative_to(SOURCE)}
    assert found - {"__init__", "parts"} == methods


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
