"""Foreign networks of scikit-learn, and for tables with text."""

from __future__ import annotations

from pathlib import Path

import exporters
import modules
import numpy as np
import torch
from case import Case, Maker, arrays, initialised, kept_in, own, parts, tables, tests, train

import data

MAKERS: dict[str, Maker] = {}


@kept_in(MAKERS)
def digits_sklearn(name: str, where: Path) -> Case:
    from sklearn.neural_network import MLPClassifier

    x, y = data.digits()
    x = x.reshape(-1, 64)
    sizes = {"train": 400, "val": 400}
    rows = parts(len(y), sizes)
    model = MLPClassifier((48,), max_iter=120, random_state=0).fit(x[rows["train"]], y[rows["train"]])
    task, raw = arrays(where, rows, {"x": x}, y)
    return Case(
        name, "skl2onnx: MLPClassifier", "classification",
        exporters.sklearn(model, [("X", "float", 64)], where / "net.onnx", zipmap=False), task,
        own(where, {"X": x[rows["fresh"]]}, y[rows["fresh"]]), raw, tests(sizes), scores=1,
    )  # fmt: skip


@kept_in(MAKERS)
def cancer_logistic(name: str, where: Path) -> Case:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    held = load_breast_cancer()
    order = np.random.default_rng(0).permutation(569)
    x, y = held.data[order].astype(np.float32), np.array(["malignant", "benign"])[held.target[order]]
    rows = parts(569, {"pool": 150, "unseen": 200})
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[rows["pool"]], y[rows["pool"]])
    columns = {n.replace(" ", "_"): x[:, i] for i, n in enumerate(held.feature_names)}
    task, raw = tables(where, rows, columns, "diagnosis", y)
    return Case(
        name, "skl2onnx: StandardScaler, LogisticRegression, ZipMap", "classification",
        exporters.sklearn(model, [("X", "float", 30)], where / "net.onnx"), task,
        own(where, {"X": x[rows["fresh"]]}, y[rows["fresh"]]), raw, 100,
        scores=1, options=("--target", "diagnosis", "--unseen", str(where / "unseen.csv")), facts="CSV and --unseen",
    )  # fmt: skip


@kept_in(MAKERS)
def staff_sklearn(name: str, where: Path) -> Case:
    """A pipeline with an input per column, text among them."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    table, y = data.staff()
    rows = parts(len(y), {"pool": 1500, "unseen": 1200})
    plain, words = ["age", "hours", "pay"], ["job", "region"]
    frame = pd.DataFrame(table)[rows["pool"]]
    shape = ColumnTransformer(
        [("n", StandardScaler(), plain), ("w", OneHotEncoder(handle_unknown="ignore"), words)]
    )
    model = Pipeline([("shape", shape), ("net", MLPClassifier((24,), max_iter=60, random_state=0))])
    model.fit(frame, y[rows["pool"]])
    types = [(n, "text" if n in words else "float", 1) for n in table]
    fresh = {
        n: v[rows["fresh"]][:, None].astype(np.str_ if n in words else np.float32) for n, v in table.items()
    }
    task, raw = tables(where, rows, table, "left", y)
    return Case(
        name, "skl2onnx: StandardScaler, OneHotEncoder, MLPClassifier, an input per column", "classification",
        exporters.sklearn(model, types, where / "net.onnx"), task, own(where, fresh, y[rows["fresh"]]), raw, 600,
        scores=1, options=("--target", "left", "--unseen", str(where / "unseen.csv")),
        facts="CSV with text, and --unseen",
    )  # fmt: skip


@kept_in(MAKERS)
def staff_one_hot(name: str, where: Path) -> Case:
    """A PyTorch network over one-hot columns in an order of its own: numbers first, as pandas makes them."""
    table, y = data.staff(seed=15)
    rows = parts(len(y), {"pool": 1500, "unseen": 1200})
    plain = ["age", "hours", "pay"]
    hot = [(c, v) for c in ("job", "region") for v in np.unique(table[c])]
    bulk = [table[n] for n in plain] + [table[c] == v for c, v in hot]
    x = np.stack(bulk, 1).astype(np.float32)
    learned = x[rows["pool"]]
    mean, std = torch.from_numpy(learned.mean(0)), torch.from_numpy(learned.std(0))
    network = modules.Shifted(initialised(modules.mlp, 0, x.shape[1], 2, 32), mean, std)
    codes = (y == "yes").astype(np.int64)
    train(network, [learned], codes[rows["pool"]], "classification", epochs=12)
    task, raw = tables(where, rows, table, "left", y)
    columns = ",".join([*plain, *(f"{c}={v}" for c, v in hot)])
    return Case(
        name, "dynamo ONNX exporter", "classification", exporters.dynamo(network, {"row": x}, where / "net.onnx"), task,
        own(where, {"row": x[rows["fresh"]]}, codes[rows["fresh"]]), raw, 600,
        ("--target", "left", "--columns", columns, "--unseen", str(where / "unseen.csv")),
        facts="CSV with text, --columns and --unseen",
    )  # fmt: skip


@kept_in(MAKERS)
def houses_sklearn(name: str, where: Path) -> Case:
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table, y = data.houses()
    rows = parts(len(y), {"pool": 2000, "unseen": 1400})
    x = np.stack(list(table.values()), 1).astype(np.float32)
    net = MLPRegressor(hidden_layer_sizes=(32,), max_iter=300, learning_rate_init=0.01, random_state=0)
    model = make_pipeline(StandardScaler(), net).fit(x[rows["pool"]], y[rows["pool"]])
    task, raw = tables(where, rows, table, "price", y)
    return Case(
        name, "skl2onnx: StandardScaler, MLPRegressor", "regression",
        exporters.sklearn(model, [("X", "float", 5)], where / "net.onnx"), task,
        own(where, {"X": x[rows["fresh"]]}, y[rows["fresh"]].astype(np.float32)), raw, 700,
        ("--target", "price", "--unseen", str(where / "unseen.csv")), facts="CSV and --unseen; regression",
    )  # fmt: skip


@kept_in(MAKERS)
def diabetes_linear(name: str, where: Path) -> Case:
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order].astype(np.float32), y[order].astype(np.float32)
    sizes = {"train": 140, "val": 150}
    rows = parts(len(y), sizes)
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(x[rows["train"]], y[rows["train"]])
    task, raw = arrays(where, rows, {"x": x}, y)
    return Case(
        name, "skl2onnx: StandardScaler, LinearRegression", "regression",
        exporters.sklearn(model, [("X", "float", 10)], where / "net.onnx"), task,
        own(where, {"X": x[rows["fresh"]]}, y[rows["fresh"]]), raw, tests(sizes), facts="R2 near 0.4; few rows",
    )  # fmt: skip
