"""The user's tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pd = pytest.importorskip("pandas", reason="tables need netwright[tables]")

from netwright.core.errors import BadInput  # noqa: E402
from netwright.core.signature import Feature  # noqa: E402
from netwright.data import task  # noqa: E402
from netwright.data.features import encode_rows  # noqa: E402

ROWS = 80
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(18, 90, ROWS),
        "income": RNG.normal(3e4, 1e4, ROWS),
        "town": RNG.choice(["Ulm", "Bonn", "Köln"], ROWS),
        "member": RNG.random(ROWS) > 0.5,
        "churn": np.array(["stays", "leaves"])[np.arange(ROWS) % 2],
    }
)


def saved(folder, frame=FRAME, name="table.csv", **how):
    path = folder / name
    if name.endswith(".parquet"):
        frame.to_parquet(path, **how)
    else:
        frame.to_csv(path, index=False, **how)
    return path


@pytest.mark.parametrize(
    ("name", "how"),
    [("t.csv", {}), ("t.csv", {"sep": ";"}), ("t.tsv", {"sep": "\t"}), ("t.csv", {"encoding": "utf-8-sig"}),
     ("t.parquet", {})],
)  # fmt: skip
def test_numbers_stay_and_names_become_columns(tmp_path, name, how):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    held = task(saved(tmp_path, name=name, **how), target="churn")
    assert held.kind == "classification"
    assert held.classes == ("leaves", "stays")
    assert held.input_shape == (6,)  # age, income, three towns, member
    assert [len(s) for s in (held.train, held.val, held.test)] == [56, 12, 12]
    raw = torch.cat([s.inputs[0] for s in (held.train, held.val, held.test)])
    y = torch.cat([s.targets for s in (held.train, held.val, held.test)])
    expected = {
        (r.age, np.float32(r.income), r.town == "Bonn", r.town == "Köln", r.town == "Ulm", r.member, r.churn)
        for r in FRAME.itertuples()
    }
    found = {
        (*(np.float32(v) if i == 1 else v for i, v in enumerate(row)), held.classes[label])
        for row, label in zip(raw.tolist(), y.tolist(), strict=True)
    }
    assert found == expected


def test_columns_are_standardised_by_the_training_rows(tmp_path):
    frame = FRAME.assign(same=7.0)
    held = task(saved(tmp_path, frame), target="churn")
    x = torch.cat([b for b, _ in held.train.batches(9)])
    assert torch.allclose(x.mean(0), torch.zeros(7), atol=1e-4)
    assert torch.allclose(x.std(0, unbiased=False)[:6], torch.ones(6), atol=1e-4)
    assert x[:, 6].abs().max() == 0


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (np.arange(ROWS) % 3 + 1, "classification", ("1", "2", "3")),
        ((np.arange(ROWS) % 2).astype(float), "classification", ("0", "1")),
        (np.arange(ROWS) % 2 == 0, "classification", ("False", "True")),
        (np.arange(ROWS) * 1000, "regression", ()),
        (np.arange(ROWS) / 7, "regression", ()),
    ],
)
def test_the_target_says_what_kind_of_task_it_is(tmp_path, values, kind, classes):
    held = task(saved(tmp_path, FRAME.drop(columns="churn").assign(label=values)))
    assert (held.kind, held.classes) == (kind, classes)


def test_kind_and_drop_can_be_said(tmp_path):
    path = saved(tmp_path, FRAME.assign(label=np.arange(ROWS) % 3))
    held = task(path, target="label", drop="town, churn", kind="regression")
    assert held.kind == "regression"
    assert held.input_shape == (3,)


def holed(column, value):
    frame = FRAME.astype({"age": float})
    frame.loc[3, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (FRAME, {"target": "chrun"}, "no column named 'chrun'. Did you mean 'churn'?"),
        (FRAME, {}, "which column is the target? Say target=NAME. It has age, income"),
        (FRAME, {"target": "churn", "drop": "agee"}, "Did you mean 'age'"),
        (
            holed("age", np.nan),
            {"target": "churn"},
            "missing values in 1 column (age 1); fill them first, or say --missing median",
        ),
        (holed("town", None), {"target": "churn"}, "1 column (town 1)"),
        (holed("income", np.inf), {"target": "churn"}, "column 'income' holds infinite values"),
        (FRAME.assign(id=[f"u{i}" for i in range(ROWS)]), {"target": "churn"}, "leave it out with drop=id"),
        (FRAME[:0], {"target": "churn"}, "has no rows"),
        (FRAME[FRAME.churn == "stays"], {"target": "churn"}, "one class only"),
        (FRAME[["churn"]], {"target": "churn"}, "no column beside the target"),
        (FRAME[:3], {"target": "churn"}, "split is empty"),
        (FRAME, {"target": "churn", "kind": "regression"}, "are names, which kind=regression cannot use"),
    ],
)
def test_bad_tables_are_one_line(tmp_path, frame, options, message):
    with pytest.raises(BadInput) as error:
        task(saved(tmp_path, frame), **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no readable table"),
        (b"a,b\n1,2\n1,2,3,4\n", "no readable table"),
        (b"a,b,y\n" + b"1,2,3,0\n4,5,6,1\n" * 20, "Length of header or names does not match length of data"),
        (b"a,label\n\xff\xfe1,2\n", "not UTF-8"),
        (b" a,a,label\n1,2,3\n", "occurs twice"),
        (b"\x00\x01\x02\n\x00", ""),
    ],
)
def test_damaged_files_are_one_line(tmp_path, data, message):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(BadInput) as error:
        task(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_comma_at_the_end_of_each_row_is_no_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{i},{i % 2},\n" for i in range(40)))
    assert task(path).input_shape == (1,)


def test_a_truncated_parquet_is_one_line(tmp_path):
    pytest.importorskip("pyarrow")
    path = saved(tmp_path, name="t.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match="no readable table"):
        task(path, target="churn")


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, data):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    try:
        task(path)
    except BadInput as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


def gaps(rows=((1, "age"), (2, "age"), (5, "town"), (9, "income"))):
    frame = FRAME.astype({"age": float})
    for row, column in rows:
        frame.loc[row, column] = None
    return frame


def test_all_columns_that_miss_values_are_named_with_their_counts(tmp_path):
    with pytest.raises(BadInput) as error:
        task(saved(tmp_path, gaps()), target="churn")
    assert "3 columns (age 2, income 1, town 1)" in str(error.value)
    with pytest.raises(BadInput, match="no way to treat missing values"):
        task(saved(tmp_path, gaps()), target="churn", missing="mean")
    unknown = gaps([(3, "churn")])
    with pytest.raises(BadInput, match=r"1 column \(churn 1\); that is the target"):
        task(saved(tmp_path, unknown), target="churn", missing="median")


def test_rows_that_miss_values_are_left_out_and_counted(tmp_path):
    held = task(saved(tmp_path, gaps()), target="churn", missing="drop")
    assert len(held.train) + len(held.val) + len(held.test) == ROWS - 4
    assert held.missing == "drop"
    assert "4 of 80 rows" in held.note
    assert task(saved(tmp_path, gaps([(3, "churn")])), target="churn", missing="drop").note.startswith(
        "1 of 80"
    )


def test_missing_values_are_filled_by_what_the_training_rows_hold(tmp_path):
    """Values of validation and test rows are moved far away: nothing may be learned from them."""
    path = saved(tmp_path, FRAME.astype({"age": float}).assign(row=np.arange(ROWS)))
    place = lambda split: split.inputs[0][:, -1].long().numpy()
    whole = task(path, target="churn")
    train, others = place(whole.train), np.concatenate([place(whole.val), place(whole.test)])
    frame = FRAME.astype({"age": float}).assign(row=np.arange(ROWS))
    frame.loc[others, "age"] = 1e4
    frame.loc[others[::2], "town"] = "Aachen"
    holes = [train[0], train[1], others[0]]
    frame.loc[holes, "age"] = None
    frame.loc[holes, "town"] = None
    held = task(saved(tmp_path, frame, "b.csv"), target="churn", missing="median")
    assert place(held.train).tolist() == train.tolist()
    age, towns = frame.loc[train, "age"].median(), frame.loc[train, "town"].mode()[0]
    features = held.inputs[0].features
    assert features[0].fill == pytest.approx(age)
    assert {f.fill for f in features if f.column == "town"} == {towns}
    rows = torch.cat([s.inputs[0] for s in (held.train, held.val, held.test)])
    for hole in holes:
        (row,) = rows[rows[:, -1] == hole]
        assert row[0] == pytest.approx(age)
        assert [f.value for f, v in zip(features, row, strict=True) if f.column == "town" and v] == [towns]


def test_columns_are_the_networks_own_in_its_order(tmp_path):
    held = task(saved(tmp_path), target="churn", columns="income, town=Ulm, age, town=Bonn, member")
    assert [(f.column, f.value) for f in held.inputs[0].features] == [
        ("income", None), ("town", "Ulm"), ("age", None), ("town", "Bonn"), ("member", None),
    ]  # fmt: skip
    raw = torch.cat([s.inputs[0] for s in (held.train, held.val, held.test)])
    expected = {
        (np.float32(r.income), r.town == "Ulm", r.age, r.town == "Bonn", r.member) for r in FRAME.itertuples()
    }
    assert {(np.float32(r[0]), *r[1:]) for r in raw.tolist()} == expected
    signature = held.signature
    assert signature.inputs[0].features == held.inputs[0].features
    assert (signature.target, signature.classes) == ("churn", ("leaves", "stays"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("age, incom", "no column named 'incom'. Did you mean 'income'? There is age, income, town, member"),
        ("age, town=Rom", "no value of 'town' named 'Rom'. It holds Bonn, Köln, Ulm."),
        (
            "town",
            "column 'town' holds text, no numbers; name its values in your network's order: town=Bonn, town=Köln",
        ),
        ("", "no column named ''"),
    ],
)
def test_columns_that_there_are_not_are_one_line(tmp_path, columns, message):
    with pytest.raises(BadInput) as error:
        task(saved(tmp_path), target="churn", columns=columns)
    assert message in str(error.value)


def test_a_network_with_an_input_per_column_is_fed_column_by_column(tmp_path):
    held = task(
        saved(tmp_path), target="churn", columns={"t": "town", "a": "age", "both": ["member", "town=Ulm"]}
    )
    assert [i.name for i in held.inputs] == ["t", "a", "both"]
    assert held.input_shapes == ((1,), (1,), (2,))
    assert held.inputs[0].features[0].codes == ("Bonn", "Köln", "Ulm")
    assert held.normalise is None
    (town, age, both), _ = next(held.train.batches(100))
    towns = {
        (r.age, ("Bonn", "Köln", "Ulm").index(r.town), r.member, r.town == "Ulm") for r in FRAME.itertuples()
    }
    assert {
        (float(a), int(t), bool(m), bool(u)) for (a,), (t,), (m, u) in zip(age, town, both, strict=True)
    } <= towns


def test_unseen_rows_are_encoded_as_the_first_table(tmp_path):
    fresh = FRAME[FRAME.town != "Köln"].head(30)[["churn", "town", "member", "income", "age"]]
    path = saved(tmp_path)
    held = task(path, target="churn", unseen=saved(tmp_path, fresh, "fresh.csv"))
    assert (held.division, len(held.train), len(held.val), len(held.test)) == ("halved", ROWS, 15, 15)
    rows = torch.cat([held.val.inputs[0], held.test.inputs[0]])
    expected = {(r.age, r.town == "Bonn", False, r.town == "Ulm") for r in fresh.itertuples()}
    assert {(r[0], *r[2:5]) for r in rows.tolist()} == expected
    assert torch.allclose(next(held.train.batches(99))[0].mean(0), torch.zeros(6), atol=1e-4)
    with pytest.raises(BadInput, match="has no column 'age', which the first table has"):
        task(path, target="churn", unseen=saved(tmp_path, fresh.drop(columns="age"), "bare.csv"))


def test_a_fresh_table_is_encoded_by_features_alone(tmp_path):
    held = task(saved(tmp_path, gaps()), target="churn", missing="median")
    features = held.inputs[0].features
    fresh = pd.DataFrame({"town": ["Ulm", None, "Rom"], "member": ["True", "False", None], "age": ["31", "4.5", None],
                          "more": 1, "income": [1, 2, 3]})  # fmt: skip
    found = encode_rows(fresh, features, "fresh.csv")
    assert (found.dtype, found.shape) == (np.float32, (3, 6))
    towns = {"Bonn": [1, 0, 0], "Köln": [0, 1, 0], "Ulm": [0, 0, 1], "Rom": [0, 0, 0]}
    fill = {f.column: f.fill for f in features}
    np.testing.assert_allclose(found[:, :2], [[31, 1], [4.5, 2], [fill["age"], 3]])
    assert found[:, 2:5].tolist() == [towns["Ulm"], towns[fill["town"]], towns["Rom"]]
    with pytest.raises(BadInput, match=r"fresh\.csv has no column 'age', 'member'; it has town, income"):
        encode_rows(fresh[["town", "income"]], features, "fresh.csv")
    with pytest.raises(BadInput, match="column 'age' holds 'old' where the network takes a number"):
        encode_rows(fresh.assign(age=["old", "1", "2"]), features, "fresh.csv")
    with pytest.raises(BadInput, match=r"missing values in 2 columns \(age 1, member 1\)"):
        encode_rows(fresh, [Feature("age"), Feature("member"), features[1]], "fresh.csv")
    with pytest.raises(BadInput, match="column 'town' holds 'Rom'; the network knows Bonn, Ulm"):
        encode_rows(fresh.dropna(subset="town"), [Feature("town", codes=("Bonn", "Ulm"))])


def test_flags_with_gaps_stay_one_number(tmp_path):
    frame = FRAME.astype({"member": object})
    frame.loc[3, "member"] = None
    held = task(saved(tmp_path, frame), target="churn", missing="median")
    assert [f.column for f in held.inputs[0].features].count("member") == 1


def test_features_that_know_what_stands_for_a_missing_value_fill_it(tmp_path):
    """As a network's own signature gives them."""
    own = (Feature("age", fill=40.0), Feature("town", "Ulm", fill="Ulm"))
    held = task(saved(tmp_path, gaps()), target="churn", columns=own)
    assert held.inputs[0].features == own
    rows = torch.cat([s.inputs[0] for s in (held.train, held.val, held.test)])
    assert int((rows[:, 0] == 40).sum()) == 2 + int((FRAME.age.drop([1, 2]) == 40).sum())
    assert int(rows[:, 1].sum()) == int((FRAME.town.drop(5) == "Ulm").sum()) + 1
    with pytest.raises(BadInput, match=r"1 column \(income 1\)"):
        task(saved(tmp_path, gaps()), target="churn", columns=[*own, "income"])
