"""The user's tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pd = pytest.importorskip("pandas", reason="tables need netwright[tables]")

from netwright.core.errors import BadInput  # noqa: E402
from netwright.data import task  # noqa: E402

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
        (holed("age", np.nan), {"target": "churn"}, "column 'age' has 1 missing values; fill or drop"),
        (holed("town", None), {"target": "churn"}, "column 'town' has 1 missing"),
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
